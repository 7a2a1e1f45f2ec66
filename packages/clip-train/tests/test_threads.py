from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import torch

from clip_train.data.threads import AHEAD, Halt, in_threads

GoOn = Callable[[], None]


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("clip-train worker")]


def test_results_come_in_order_whoever_is_slow() -> None:
    def make(number: int, go_on: GoOn) -> int:
        time.sleep(0.02 * (number % 3 == 0))
        return number * number

    assert list(in_threads(make, range(5, 40), threads=3)) == [number * number for number in range(5, 40)]
    assert workers() == []
    assert list(in_threads(make, range(0), threads=2)) == []


def test_so_many_results_are_made_ahead_and_no_more() -> None:
    made: list[int] = []
    results = in_threads(lambda number, go_on: made.append(number), range(100), threads=2)
    next(results)
    deadline = time.monotonic() + 5
    most = 1 + 2 * (AHEAD + 1)
    while len(made) < most and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert sorted(made) == list(range(most))
    results.close()  # type: ignore[attr-defined]
    assert workers() == []


def test_work_that_nobody_wants_ends_in_the_middle() -> None:
    ended: list[int] = []

    def make(number: int, go_on: GoOn) -> int:
        for _ in range(10_000 if number else 1):
            time.sleep(0.001)
            try:
                go_on()
            except Halt:
                ended.append(number)
                raise
        return number

    results = in_threads(make, range(9), threads=2)
    assert next(results) == 0
    before = time.monotonic()
    results.close()  # type: ignore[attr-defined]
    assert time.monotonic() - before < 3
    assert ended
    assert workers() == []


def test_an_error_comes_in_its_place_and_ends_the_threads() -> None:
    def make(number: int, go_on: GoOn) -> int:
        if number == 3:
            raise MemoryError("no room")
        return number

    results = in_threads(make, range(9), threads=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(MemoryError, match="no room"):
        next(results)
    assert workers() == []


def test_a_thread_that_cannot_start_is_an_error_and_no_standstill() -> None:
    said: list[str] = []

    def start() -> None:
        raise RuntimeError("no device left")

    def use() -> None:
        with pytest.raises(RuntimeError, match="no device left") as caught:
            list(in_threads(lambda number, go_on: number, range(4), threads=2, start=start))
        said.append(str(caught.value))

    user = threading.Thread(target=use, daemon=True)
    user.start()
    user.join(20)
    assert said == ["no device left"]
    assert workers() == []


def test_threads_that_hang_are_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clip_train.data.threads._PARTING_SECONDS", 0.5)
    free = threading.Event()

    def make(number: int, go_on: GoOn) -> int:
        if number:
            free.wait(20)
        return number

    results = in_threads(make, range(40), threads=12)
    assert next(results) == 0
    before = time.monotonic()
    results.close()  # type: ignore[attr-defined]
    # Not half a second for each of them.
    assert time.monotonic() - before < 3
    free.set()


def test_workers_compute_with_one_thread_and_leave_torch_s_setting_to_others() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert list(in_threads(lambda number, go_on: torch.get_num_threads(), range(4), threads=2)) == [1] * 4
        assert torch.get_num_threads() == 2
        later: list[int] = []
        other = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert later == [2]
    finally:
        torch.set_num_threads(before)
