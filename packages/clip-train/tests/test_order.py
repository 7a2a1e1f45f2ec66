from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_core.errors import DataError
from clip_train.data.order import Order


@settings(deadline=None)
@given(seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 10**6), count=st.integers(1, 700))
def test_every_sample_exactly_once_per_pass(seed: int, epoch: int, count: int) -> None:
    order = Order(seed, count)
    assert sorted(order.sample(epoch, position) for position in range(count)) == list(range(count))


@settings(deadline=None)
@given(position=st.integers(0, 999), epoch=st.integers(0, 9), other=st.integers(0, 9))
def test_a_sample_depends_on_nothing_that_was_asked_before(position: int, epoch: int, other: int) -> None:
    asked = Order(3, 1000)
    asked.sample(other, 17)
    assert asked.sample(epoch, position) == Order(3, 1000).sample(epoch, position)


def test_passes_and_seeds_differ_and_look_shuffled() -> None:
    count = 1000
    orders = [[Order(seed, count).sample(epoch, p) for p in range(count)] for seed in (0, 1) for epoch in (0, 1)]
    orders.append(list(range(count)))
    for number, one in enumerate(orders):
        for other in orders[:number]:
            # Two random permutations agree in one place on average; ten is beyond chance.
            assert sum(a == b for a, b in zip(one, other, strict=True)) < 10


def test_large_counts_need_no_memory() -> None:
    count = 10**10
    drawn = [Order(0, count).sample(0, position) for position in range(200)]
    assert len(set(drawn)) == 200
    assert max(drawn) > count / 2 > min(drawn) >= 0


@settings(deadline=None)
@given(count=st.integers(2, 300), position=st.integers(0, 299), batch=st.integers(2, 150))
def test_the_first_substitute_is_not_in_the_same_batch(count: int, position: int, batch: int) -> None:
    if batch > count // 2 or position >= count:
        return
    order = Order(0, count)
    first = position // batch * batch
    slots = {order.sample(*divmod(slot, count)) for slot in range(first, min(first + batch, count))}
    assert order.substitute(0, position, 0) not in slots


def test_substitutes_reach_every_sample() -> None:
    order = Order(0, 50)
    assert {order.substitute(1, 7, attempt) for attempt in range(50)} == set(range(50))


def test_no_sample_is_an_error() -> None:
    with pytest.raises(DataError, match="no sample"):
        Order(0, 0)
