"""Workers that are threads: no fork, no shared memory, one index. Results come in order, so many ahead and no more.

Decoding, resizing and reading let go of Python's lock, so threads do run at once; what is left of Python is done by one
at a time, beside the loop. What this room leaves out: processes (`loader`), and what a batch is (`decode`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import torch

__all__ = ["AHEAD", "Halt", "in_threads"]

T = TypeVar("T")

AHEAD = 4
"""Results of each worker that wait to be taken, whether it is a thread or a process."""
# How long threads that hang, say in transfers, are waited for, all together.
_PARTING_SECONDS = 5.0
# On Windows a wait without an end would keep Ctrl-C waiting, too.
_LOOK_SECONDS = 1.0


class Halt(Exception):  # no error: nobody wants the result any more
    """Ends the work on a result in the middle."""


class _Failed:
    """An error in the place of a result."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Work(Generic[T]):
    """What the threads share."""

    def __init__(self, make: Callable[[int, Callable[[], None]], T], numbers: range, most: int) -> None:
        self.make, self.numbers, self.most = make, numbers, most
        self.changed = threading.Condition()
        self.begun = self.taken = 0
        self.done: dict[int, T | _Failed] = {}
        self.halted = False
        self.failed: _Failed | None = None
        """A thread that could not even start."""

    def go_on(self) -> None:
        """Raises `Halt` where nobody wants the result any more."""
        if self.halted:
            raise Halt

    def _is_wanted(self) -> bool:
        return self.begun < min(len(self.numbers), self.taken + self.most)

    def run(self, begin: Callable[[], None], start: Callable[[], None]) -> None:
        begin()
        try:
            start()
        except BaseException as error:
            # Nobody would make what this thread was to make.
            self.fail(error)
            return
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.halted or self._is_wanted())
                if self.halted:
                    return
                place = self.begun
                self.begun += 1
            result: T | _Failed
            try:
                result = self.make(self.numbers[place], self.go_on)
            except BaseException as error:
                result = _Failed(error)
            with self.changed:
                self.done[place] = result
                self.changed.notify_all()
            if place == len(self.numbers) - 1:
                return

    def take(self, place: int) -> T | _Failed:
        with self.changed:
            while not self.changed.wait_for(lambda: place in self.done or self.failed is not None, _LOOK_SECONDS):
                pass
            if self.failed is not None:
                return self.failed
            self.taken = place + 1
            self.changed.notify_all()
            return self.done.pop(place)

    def fail(self, error: BaseException) -> None:
        with self.changed:
            self.failed = _Failed(error)
            self.changed.notify_all()

    def halt(self) -> None:
        with self.changed:
            self.halted = True
            self.changed.notify_all()


def in_threads(
    make: Callable[[int, Callable[[], None]], T],
    numbers: range,
    *,
    threads: int,
    start: Callable[[], None] = lambda: None,
) -> Iterator[T]:
    """`make(number, go_on)` for each of `numbers`, in order, made by `threads` threads.

    `make` calls `go_on` now and then, which ends it when nobody wants the result any more. An error of `make` is raised
    here, in its place. `start` is called first in each thread, and its error ends all. Whoever stops early ends the
    threads by closing this.
    """
    work = _Work(make, numbers, threads * (AHEAD + 1))
    before, ready = torch.get_num_threads(), threading.Barrier(threads + 1)

    def begin() -> None:
        # Several images at once: torch shall not divide each of them among the cores, too. A thread takes over the
        # common number when it asks for the first time, and would overwrite its own.
        torch.get_num_threads()
        torch.set_num_threads(1)
        ready.wait()

    team = [
        threading.Thread(target=work.run, args=(begin, start), daemon=True, name=f"clip-train worker {number}")
        for number in range(threads)
    ]
    for thread in team:
        thread.start()
    ready.wait()
    # The number is this thread's own, but it is also what threads begin with that torch starts later.
    torch.set_num_threads(before)
    try:
        for place in range(len(numbers)):
            result = work.take(place)
            if isinstance(result, _Failed):
                raise result.error
            yield result
    finally:
        work.halt()
        end = time.monotonic() + _PARTING_SECONDS
        for thread in team:
            thread.join(max(0.0, end - time.monotonic()))
