"""A field of the configuration with the sentence that `--help` shows for it."""

from __future__ import annotations

import dataclasses
from typing import Any

__all__ = ["KeyValues", "flag"]

KeyValues = tuple[tuple[str, bool | int | float | str], ...]
"""What `key=value key=value` on the command line becomes, in the order of the keys."""


def flag(default: Any = dataclasses.MISSING, *, help: str) -> Any:
    """A field called as its flag, with underscores; without a default it has to be given."""
    return dataclasses.field(default=default, metadata={"help": help})
