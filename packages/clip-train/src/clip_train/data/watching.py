"""Blocks of bytes from somewhere else, given up when too few of them come. What this room leaves out: trying again."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator

from clip_hub.retrying import Broken

__all__ = ["LEAST_RATE", "watched"]

LEAST_RATE = 1000
"""Bytes per second of waiting, averaged over the stall timeout, below which a transfer counts as hung."""


def watched(begin: Callable[[], Iterator[bytes]], stall: float, what: str) -> Iterator[bytes]:
    """The blocks of `begin()`, which runs in a thread and is left to itself once it hangs.

    Only waiting counts, not what the caller does with a block. Raises `Broken` naming `what` when `stall` seconds of
    waiting brought less than `LEAST_RATE` bytes each, and what `begin` raises.
    """
    arriving: queue.Queue[bytes | Exception | None] = queue.Queue(maxsize=2)
    given_up = threading.Event()

    def hand_over(item: bytes | Exception | None) -> None:
        while not given_up.is_set():
            with contextlib.suppress(queue.Full):
                arriving.put(item, timeout=1)
                return

    def work() -> None:
        try:
            for block in begin():
                hand_over(block)
                if given_up.is_set():
                    return
            hand_over(None)
        except Exception as error:
            hand_over(error)

    threading.Thread(target=work, daemon=True, name="clip-train transfer").start()
    waited, arrived = 0.0, 0
    try:
        while True:
            before = time.monotonic()
            item: bytes | Exception | None = b""
            with contextlib.suppress(queue.Empty):
                item = arriving.get(timeout=max(0.001, stall - waited))
            waited += time.monotonic() - before
            if item is None:
                return
            if isinstance(item, Exception):
                raise item
            arrived += len(item)
            if waited >= stall:
                if arrived < LEAST_RATE * stall:
                    raise Broken(f"{what} has stalled: {arrived} bytes in {waited:.0f} s")
                waited, arrived = 0.0, 0
            if item:
                yield item
    finally:
        given_up.set()
