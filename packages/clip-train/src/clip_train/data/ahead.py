"""Shards that are brought before they are read, in a thread that does nothing else.

What this room leaves out: which ones (`windows`), and how (`fetching`).
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable

__all__ = ["Ahead"]

_log = logging.getLogger(__name__)


class Ahead:
    """Calls `bring(number)` for what is wanted, in the order in which it was wanted first."""

    def __init__(self, bring: Callable[[int], object]) -> None:
        self._bring = bring
        self._process = os.getpid()
        self._wanted: set[int] = set()
        self._queue: queue.SimpleQueue[int] = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True, name="clip-train ahead").start()

    @property
    def is_of_this_process(self) -> bool:
        """Whether the thread is one of this process: a fork does not take it along."""
        return self._process == os.getpid()

    def want(self, number: int) -> None:
        """Bring this one soon, unless that is under way."""
        if number not in self._wanted:
            self._wanted.add(number)
            self._queue.put(number)

    def _work(self) -> None:
        while True:
            number = self._queue.get()
            try:
                self._bring(number)
            except Exception as error:
                # Whoever reads it meets the same and says so.
                _log.debug("not brought ahead: %s", error)
            self._wanted.discard(number)
