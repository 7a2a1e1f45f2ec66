from __future__ import annotations

import pickle
from collections import Counter
from itertools import accumulate

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from clip_train.data.mixtures import MixedOrder, Part, ResampledOrder
from clip_train.data.order import Order
from clip_train.data.windows import ResampledWindowOrder, Streams, WindowOrder

SHARDS = st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(any)


def parts_of(sizes: list[list[int]], factors: list[float]) -> list[tuple[Part, list[int]]]:
    firsts = list(accumulate(map(sum, sizes), initial=0))
    return [(Part(first, sum(held), factor), held) for first, held, factor in zip(firsts, sizes, factors, strict=False)]


@settings(deadline=None)
@given(
    sizes=st.lists(SHARDS, min_size=1, max_size=3),
    batch=st.integers(1, 40),
    streams=st.integers(1, 40),
    window=st.integers(1, 50),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 1000),
)
def test_every_sample_exactly_once_per_pass(
    sizes: list[list[int]], batch: int, streams: int, window: int, seed: int, epoch: int
) -> None:
    order = WindowOrder(seed, parts_of(sizes, [1.0] * 3), Streams(batch, min(streams, batch), window))
    assert order.count == sum(map(sum, sizes))
    assert sorted(order.sample(epoch, n) for n in range(order.count)) == list(range(order.count))


@settings(deadline=None)
@given(
    sizes=st.lists(SHARDS, min_size=2, max_size=3),
    factors=st.lists(st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.3]), min_size=3, max_size=3),
    batch=st.integers(1, 40),
    window=st.integers(1, 50),
    epoch=st.integers(0, 9),
)
def test_every_sample_comes_as_often_as_the_factor_says(
    sizes: list[list[int]], factors: list[float], batch: int, window: int, epoch: int
) -> None:
    parts = parts_of(sizes, factors)
    assume(any(part.quota for part, _ in parts))  # half of one sample is none, and no order
    order = WindowOrder(5, parts, Streams(batch, min(4, batch), window))
    seen = Counter(order.sample(epoch, n) for n in range(order.count))
    for part, _ in parts:
        times = [seen[part.first + n] for n in range(part.count)]
        assert sum(times) == part.quota
        assert set(times) <= {int(part.factor), int(part.factor) + 1}


def test_a_sample_depends_on_nothing_that_was_asked_before() -> None:
    def make() -> WindowOrder:
        return WindowOrder(3, parts_of([[40, 60, 30], [70]], [1.0, 1.5]), Streams(16, 4, 20))

    order = make()
    asked = [(2, 50), (0, 3), (1, 7), (0, 3), (1, 200), (0, 199)]
    for epoch, position in asked:
        found = order.sample(epoch, position)
        assert found == make().sample(epoch, position)
        assert found == pickle.loads(pickle.dumps(order)).sample(epoch, position)


def test_passes_differ_and_are_shuffled() -> None:
    order = WindowOrder(0, parts_of([[50] * 20], [1.0]), Streams(40, 8, 100))
    passes = [[order.sample(epoch, n) for n in range(1000)] for epoch in (0, 1)]
    for one, other in ((passes[0], passes[1]), (passes[0], list(range(1000)))):
        assert sum(a == b for a, b in zip(one, other, strict=True)) < 10


def test_a_shard_is_needed_by_few_streams_and_for_a_while_only() -> None:
    shards, size = 40, 100
    order = WindowOrder(1, parts_of([[size] * shards], [1.0]), Streams(64, 8, 50))
    needed: dict[int, list[int]] = {}
    owners: dict[int, set[int]] = {}
    for position in range(order.count):
        shard = order.sample(3, position) // size
        needed.setdefault(shard, []).append(position // 64)
        owners.setdefault(shard, set()).add((3 * order.count + position) % 64 // 8)
    assert max(map(len, owners.values())) <= 2
    assert sum(map(len, owners.values())) <= shards + 8
    # A shard of 100 samples is 12.5 steps of a stream; a window at each end adds up to 6 each. One that two streams
    # share is needed by both for a part of that.
    spans = [max(steps) - min(steps) for shard, steps in needed.items() if len(owners[shard]) == 1]
    assert max(spans) <= 26
    # At no time more shards are in use than two or three for each stream.
    in_use = [sum(min(steps) <= step <= max(steps) for shard, steps in needed.items() if len(owners[shard]) == 1)
              for step in range(order.count // 64)]  # fmt: skip
    assert max(in_use) <= 24


def test_the_slots_of_a_process_are_streams_of_its_own() -> None:
    """With 4 processes of 16 samples, whatever the micro-batches, each reads a quarter of the shards."""
    order = WindowOrder(1, parts_of([[100] * 40], [1.0]), Streams(64, 8, 50))
    readers: dict[int, set[int]] = {}
    for position in range(order.count):
        readers.setdefault(order.sample(0, position) // 100, set()).add(position % 64 // 16)
    assert sum(map(len, readers.values())) <= 40 + 4


def test_what_comes_next_is_said_before_it_is_read() -> None:
    said: list[int] = []
    order = WindowOrder(1, parts_of([[10] * 30], [1.0]), Streams(12, 3, 15), lambda firsts: said.extend(firsts))
    late = 0
    for position in range(order.count):
        told = len(said)
        shard = order.sample(0, position) // 10
        known = {first // 10 for first in said[:told]}
        late += shard not in known
    # Only what a stream begins with is not known a window ahead.
    assert late <= 3 * 3
    assert {first // 10 for first in said} == set(range(30))


def test_a_substitute_is_of_the_same_window() -> None:
    order = WindowOrder(1, parts_of([[100] * 40], [1.0]), Streams(64, 8, 50))
    for position in (0, 777):
        window = order._place(0, position)[:2]
        near = {order.sample(0, n) // 100 for n in range(order.count) if order._place(0, n)[:2] == window}
        found = [order.substitute(0, position, attempt) for attempt in range(49)]
        assert {sample // 100 for sample in found} <= near
        assert len(set(found)) == 49
    # Where a whole window is bad, the rest of the pass is tried.
    assert {order.substitute(0, 7, attempt) for attempt in range(4200)} == set(range(4000))


def test_stretches_are_drawn_by_weight_and_by_the_slot_alone() -> None:
    parts = [Part(0, 300, 1.0), Part(300, 100, 6.0)]
    order = ResampledWindowOrder(2, parts, Streams(16, 4, 25))
    assert order.count == 400
    draws = [order.sample(*divmod(slot, 400)) for slot in range(40_000)]
    assert sum(sample >= 300 for sample in draws) / 40_000 == pytest.approx(2 / 3, abs=0.05)
    other = ResampledWindowOrder(2, parts, Streams(16, 4, 25))
    assert [other.sample(*divmod(slot, 400)) for slot in (39_999, 5, 20_000)] == [
        draws[39_999],
        draws[5],
        draws[20_000],
    ]
    # 25 slots of one stream are 25 samples that stand in a row.
    assert len({draws[slot] for slot in [slot for slot in range(100) if slot % 16 < 4][:25]}) == 25
    assert set(draws) == set(range(400))


def test_a_sample_that_comes_again_is_another_occasion() -> None:
    once, twice = (WindowOrder(0, parts_of([[10, 10]], [factor]), Streams(4, 2, 5)) for factor in (1.0, 2.0))
    assert {once.occasion(3, position) for position in range(20)} == {3}
    assert len({twice.occasion(3, position) for position in range(40)}) == 40
    drawn = ResampledWindowOrder(0, [Part(0, 20)], Streams(4, 2, 5))
    assert len({drawn.occasion(3, position) for position in range(20)}) == 20


def test_the_fingerprint_says_what_a_slot_follows_from() -> None:
    parts = parts_of([[5, 5], [6]], [1.0, 2.0])
    flat = [part for part, _ in parts]
    made = [
        order.fingerprint
        for order in (
            WindowOrder(0, parts, Streams(8, 2, 4)),
            WindowOrder(0, parts, Streams(8, 4, 4)),
            WindowOrder(0, parts, Streams(8, 2, 3)),
            WindowOrder(1, parts, Streams(8, 2, 4)),
            WindowOrder(0, parts_of([[5, 5], [6]], [2.0, 1.0]), Streams(8, 2, 4)),
            ResampledWindowOrder(0, flat, Streams(8, 2, 4)),
            ResampledOrder(0, flat),
            MixedOrder(0, flat),
            Order(0, 22),
        )
    ]
    assert all(one != other for number, one in enumerate(made) for other in made[:number])
    assert made[0] == WindowOrder(0, parts, Streams(8, 2, 4)).fingerprint
