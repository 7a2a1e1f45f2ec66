"""When a download is tried again, how often, and after how long: the one policy for the Hub and for addresses.

Tried again is what may go better the next time: no connection, a connection that broke, a body that was cut, and the
statuses 408, 429, 500, 502, 503 and 504; five times in all, after 1, 2, 4 and 8 seconds, or after as long as the server
asks with `Retry-After`, up to two minutes. Everything else (not found, no access, a full disk) fails at once.
huggingface_hub's client follows the same numbers while it reads a body; there its word counts and nothing is doubled.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from time import sleep
from typing import TypeVar

__all__ = ["RETRIED", "TRIES", "Broken", "retry_after", "retrying"]

_log = logging.getLogger(__name__)
RETRIED = (408, 429, 500, 502, 503, 504)
"""Statuses of HTTP after which the same request may succeed."""
TRIES = 5
LONGEST = 120.0
"""Seconds; a server that wants a longer pause is not waited for."""

_T = TypeVar("_T")


class Broken(Exception):
    """A try that failed and may go better the next time; `after` is how many seconds the server wants to be left."""

    def __init__(self, cause: str, after: float | None = None) -> None:
        super().__init__(cause)
        self.after = after


def retrying(action: Callable[[], _T], what: str) -> _T:
    """What `action` gives, tried again while it raises `Broken`; the last one is passed on, with how often it was."""
    attempt = 0
    while True:
        attempt += 1
        try:
            return action()
        except Broken as error:
            pause = 2.0 ** (attempt - 1) if error.after is None else error.after
            if pause > LONGEST:
                raise Broken(f"{error}, for {pause:.0f} s", error.after) from error
            if attempt == TRIES:
                raise Broken(f"{error}, {TRIES} times", error.after) from error
            _log.warning("%s: %s; trying again in %.0f s (%d of %d)", what, error, pause, attempt, TRIES)
            sleep(pause)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds of a `Retry-After` header; None where there is none, or a date."""
    stated = headers.get("Retry-After", "").strip()
    return float(stated) if stated.isdigit() else None
