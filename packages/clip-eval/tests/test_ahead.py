"""Work ahead of its taker: in order, bounded, and ended with it."""

from __future__ import annotations

import threading

import pytest

from clip_eval.ahead import BATCHES_AHEAD, run_ahead


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order(workers: int) -> None:
    batches = [[1, 2, 3], [4], [], [5, 6]]
    assert list(run_ahead(lambda item: item * 2, batches, workers)) == [[2, 4, 6], [8], [], [10, 12]]


def test_no_more_is_held_than_a_few_batches() -> None:
    started, taken = [], 0
    lock, most = threading.Lock(), 0

    def note(item: int) -> int:
        nonlocal most
        with lock:
            started.append(item)
            most = max(most, len(started) - taken)
        return item

    for batch in run_ahead(note, ([number] * 4 for number in range(30)), workers=3):
        taken += len(batch)
    assert len(started) == 120
    assert most <= 4 * (BATCHES_AHEAD + 2)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_when_it_is_its_turn(workers: int) -> None:
    results = run_ahead(lambda item: 1 // item, [[1, 1], [1, 0], [1]], workers)
    assert next(results) == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_threads_end_with_the_taker() -> None:
    before = threading.active_count()
    results = run_ahead(lambda item: item, ([number] for number in range(1000)), workers=3)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
