"""Requests that came in, and what goes wrong with them; see `hub_server`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["STATUSES", "Fault", "Request"]

STATUSES = {"401": 401, "403": 403, "404": 404, "408": 408, "429": 429, "500": 500, "502": 502, "503": 503, "504": 504}
_FAULTS = {*STATUSES, "gated", "missing", "drop", "slow", "stall", "cut", "flip", "short", "empty", "no range"}


class Request(NamedTuple):
    """One request as it came in."""

    method: str
    path: str
    file: str
    """The path inside the repository, or "" where it is about no single file."""
    range: str
    token: str


@dataclass
class Fault:
    """What goes wrong, where, and how often.

    Kinds: a status ("401", "403", "404", "408", "429", "500", "502", "503", "504"); "gated" (403 with the Hub's code
    for it); "missing" (404 with the Hub's code for a missing file); "drop" (no answer, the connection closes).
    Of bodies: "slow" (`seconds` after each of ten pieces), "stall" (nothing after byte `at`, for `seconds`),
    "cut" (the connection closes after byte `at`), "flip" (a bit of byte `at` is wrong), "short" (the last byte is
    missing, and the length says so), "empty", "no range" (the whole file, whatever was asked). `at` is half way where
    it is not given.
    """

    kind: str
    file: str = "*"
    """A pattern for the path inside the repository, or of the request where it is about no single file."""
    method: str = "*"
    times: int | None = None
    """How many requests it meets; None for all."""
    retry_after: int | None = None
    seconds: float = 0.05
    at: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in _FAULTS:
            raise ValueError(f"no fault {self.kind!r}; there are: {', '.join(sorted(_FAULTS))}")

    @property
    def of_body(self) -> bool:
        return self.kind in ("slow", "stall", "cut", "flip", "short", "empty", "no range")
