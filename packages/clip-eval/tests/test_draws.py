"""Few shots and held-out images: balanced, the same for one seed, and no matter in which order the images come."""

from __future__ import annotations

import pytest
import torch

from clip_core.errors import ConfigError, DataError
from clip_eval.metrics.draws import over_draws, student
from clip_eval.metrics.intervals import Metric
from clip_eval.probe.draws import draw_shots, hold_out, shuffled

KEYS = [f"s{number:07d}" for number in range(120)]
LABELS = torch.arange(120) % 7
NAMES = [f"class {number}" for number in range(7)]


def test_shots_are_balanced_and_differ_by_seed() -> None:
    drawn = [draw_shots(LABELS, shuffled(KEYS, seed), 4, NAMES) for seed in (0, 1)]
    for places in drawn:
        assert torch.bincount(LABELS[places]).tolist() == [4] * 7
    assert drawn[0].tolist() != drawn[1].tolist()
    assert drawn[0].tolist() == draw_shots(LABELS, shuffled(KEYS, 0), 4, NAMES).tolist()
    more = set(draw_shots(LABELS, shuffled(KEYS, 0), 8, NAMES).tolist())
    assert set(drawn[0].tolist()) < more


def test_shots_do_not_depend_on_the_order_of_the_images() -> None:
    mix = torch.randperm(120, generator=torch.Generator().manual_seed(0))
    keys = [KEYS[place] for place in mix.tolist()]
    mixed = draw_shots(LABELS[mix], shuffled(keys, 3), 5, NAMES)
    assert {keys[place] for place in mixed.tolist()} == {
        KEYS[place] for place in draw_shots(LABELS, shuffled(KEYS, 3), 5, NAMES).tolist()
    }


def test_a_class_with_too_few_images_is_an_error() -> None:
    labels = LABELS.clone()
    labels[labels == 3] = 2
    labels[5] = 3
    with pytest.raises(DataError, match="1 of 7 classes have fewer than 2 training images: 'class 3' has 1"):
        draw_shots(labels, shuffled(KEYS, 0), 2, NAMES)
    with pytest.raises(ConfigError, match="fewshot_k is 0"):
        draw_shots(labels, shuffled(KEYS, 0), 0, NAMES)


def test_a_fifth_of_each_class_is_held_out() -> None:
    labels = torch.cat([torch.zeros(100), torch.ones(10), torch.full((2,), 2), torch.full((1,), 3)]).long()
    keys = [str(number) for number in range(len(labels))]
    kept, held = hold_out(labels, shuffled(keys, 0), 0.2)
    assert torch.bincount(labels[held], minlength=4).tolist() == [20, 2, 1, 0]
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(113))


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 6, 9, 15, 40, 200])
def test_student_equals_scipy(freedom: int) -> None:
    from scipy.stats import t

    assert student(freedom) == pytest.approx(t.ppf(0.975, freedom), rel=2e-3)


def test_the_interval_over_draws_knows_of_images_and_draws() -> None:
    def metric(value: float) -> Metric:
        return Metric(
            value=value, n=50, low=value - 0.03, high=value + 0.05, interval="Wilson", optimistic=1.0, pessimistic=0.0
        )

    assert over_draws([metric(0.5)]) == metric(0.5)
    same = over_draws([metric(0.5)] * 3)
    assert (same.value, same.low, same.high, same.n) == (0.5, pytest.approx(0.47), pytest.approx(0.55), 50)
    spread = over_draws([metric(0.5), metric(0.6)])
    assert spread.value == pytest.approx(0.55)
    assert spread.high == 1.0
    assert spread.low == 0.0
    assert spread.optimistic == 1
    assert "Student's t over 2 draws" in spread.interval
