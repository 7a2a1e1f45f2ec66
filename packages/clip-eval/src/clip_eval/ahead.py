"""Work that is done a few batches ahead of whoever takes it, in threads: memory holds those batches and no more."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["BATCHES_AHEAD", "run_ahead"]

_T = TypeVar("_T")
_R = TypeVar("_R")

BATCHES_AHEAD = 2
"""Batches that are being made or wait, besides the one that is taken."""


def run_ahead(action: Callable[[_T], _R], batches: Iterable[Sequence[_T]], workers: int) -> Iterator[list[_R]]:
    """For each batch the results of `action` for its items, in order; what it raises is raised when it is their turn.

    workers: threads; 0 runs `action` when a batch is taken.
    """
    if workers == 0:
        for batch in batches:
            yield [action(item) for item in batch]
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="ahead") as pool:
        ahead: deque[list[Future[_R]]] = deque()
        try:
            for batch in batches:
                ahead.append([pool.submit(action, item) for item in batch])
                if len(ahead) > BATCHES_AHEAD:
                    yield [future.result() for future in ahead.popleft()]
            while ahead:
                yield [future.result() for future in ahead.popleft()]
        finally:
            pool.shutdown(cancel_futures=True)
