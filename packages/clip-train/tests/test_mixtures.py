from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_core.errors import ConfigError
from clip_train.data.mixtures import MixedOrder, Part, PartWeights, ResampledOrder

FACTORS = st.sampled_from([0.25, 0.5, 1.0, 1.5, 2.0, 3.3, 0.1])


def in_a_row(sizes: list[int], factors: list[float]) -> list[Part]:
    return [Part(sum(sizes[:n]), size, factor) for n, (size, factor) in enumerate(zip(sizes, factors, strict=True))]


@settings(deadline=None)
@given(
    parts=st.lists(st.tuples(st.integers(1, 60), FACTORS), min_size=1, max_size=4),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 1000),
)
def test_every_sample_comes_as_often_as_the_factor_says(parts: list[tuple[int, float]], seed: int, epoch: int) -> None:
    rows = in_a_row([size for size, _ in parts], [factor for _, factor in parts])
    if not any(row.quota for row in rows):
        with pytest.raises(ConfigError, match="no sample"):
            MixedOrder(seed, rows)
        return
    order = MixedOrder(seed, rows)
    seen = Counter(order.sample(epoch, position) for position in range(order.count))
    for row in rows:
        times = [seen[row.first + n] for n in range(row.count)]
        assert sum(times) == row.quota
        assert set(times) <= {int(row.factor), int(row.factor) + 1}
        assert abs(row.quota - row.factor * row.count) <= 0.5 + 1e-9


def test_what_comes_once_more_differs_from_pass_to_pass() -> None:
    order = MixedOrder(1, [Part(0, 200, 0.5)])
    first, second = ({order.sample(epoch, n) for n in range(100)} for epoch in (0, 1))
    assert len(first) == len(second) == 100
    assert 25 < len(first & second) < 75
    assert order.sample(0, 17) == MixedOrder(1, [Part(0, 200, 0.5)]).sample(0, 17)


def test_drawing_follows_the_factors_and_the_sizes() -> None:
    parts = in_a_row([100, 300, 50], [1.0, 0.5, 4.0])
    order = ResampledOrder(3, parts)
    draws = [order.sample(*divmod(slot, order.count)) for slot in range(9000)]
    by_part = Counter(0 if n < 100 else 1 if n < 400 else 2 for n in draws)
    for number, weight in enumerate((100, 150, 200)):
        assert by_part[number] / 9000 == pytest.approx(weight / 450, abs=0.02)
    # With replacement: of 450 samples in 450 draws about a third are missing.
    assert 0.5 < len({order.sample(0, n) for n in range(450)}) / 450 < 0.75
    assert set(draws) == set(range(450))


def test_a_draw_depends_on_the_slot_alone() -> None:
    order = ResampledOrder(3, [Part(0, 100)])
    assert order.sample(2, 30) == ResampledOrder(3, [Part(0, 100)]).sample(1, 130)
    assert [order.sample(0, n) for n in range(20)] != [
        ResampledOrder(4, [Part(0, 100)]).sample(0, n) for n in range(20)
    ]


def test_weights_are_exact() -> None:
    weights = PartWeights([Part(0, 3, 0.1), Part(3, 0, 5.0), Part(3, 7, 0.3)])
    total = Fraction(3, 10) + Fraction(21, 10)
    edge = int(Fraction(3, 10) / total * 2**64)
    assert weights.draw(0).first == weights.draw(edge - 1).first == 0
    assert weights.draw(edge + 1).first == weights.draw(2**64 - 1).first == 3


def test_a_sample_that_comes_again_is_another_occasion() -> None:
    for order in (MixedOrder(0, [Part(0, 20, 3.0)]), ResampledOrder(0, [Part(0, 20)])):
        slots = [(epoch, position) for epoch in range(3) for position in range(order.count)]
        assert len({order.occasion(*slot) for slot in slots}) == len(slots)
