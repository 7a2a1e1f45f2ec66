"""What can go wrong, as types: every error of the four packages that a user can cause or cure is one of these.

A message names the value, what is allowed, and what to do. Command lines print the message of a `ClipError` on
stderr and exit with code 2; any other exception is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

__all__ = [
    "CheckpointMismatch",
    "ClipError",
    "ConfigError",
    "DataError",
    "ImageError",
    "StorageError",
    "TokenTooLong",
    "UnknownModel",
    "listed",
    "nearest",
]


class ClipError(Exception):
    """Base of every error below."""


class ConfigError(ClipError, ValueError):
    """A configuration field, an option or an argument holds a value that is not allowed."""


class UnknownModel(ClipError, ValueError):
    """A model name or a pretrained tag is not known; the message lists the nearest names."""

    @classmethod
    def among(cls, kind: str, name: str, known: Iterable[str], advice: str) -> UnknownModel:
        """The error for `name`, which is no `kind` ("model", "pretrained tag") among `known`."""
        known = list(known)
        close = nearest(name, known)
        if close:
            guess = f" Did you mean {', '.join(close)}?"
        else:
            guess = f" There are {', '.join(known[:5])}{' ...' if len(known) > 5 else ''}." if known else ""
        return cls(f"Unknown {kind} {name!r}.{guess} {advice}")


class CheckpointMismatch(ClipError):
    """Weights do not fit the configuration they are to be loaded into, or a file holds no weights."""


class TokenTooLong(ClipError, ValueError):
    """A text has more tokens than the context holds and truncation was refused."""


class ImageError(ClipError):
    """An image cannot be opened or decoded; the message names the file and the reason."""


class StorageError(ClipError, OSError):
    """A file or a folder cannot be written; names it, the cause and what to do."""


class DataError(ClipError):
    """A data set, a shard or a record file is missing, damaged or not what it should be; names the file."""


def listed(items: Sequence[str], most: int = 5) -> str:
    """The first `most` of `items`, and how many more there are, for a message."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def nearest(name: str, known: Iterable[str], count: int = 5) -> list[str]:
    """Up to `count` entries of `known` that look most like `name`, best first; case is ignored.

    One that differs in case alone stands alone; where some begin with `name`, they do.
    """
    folded: dict[str, str] = {}
    for entry in known:
        folded.setdefault(entry.lower(), entry)
    asked = name.lower()
    if asked in folded:
        return [folded[asked]]
    begin = [entry for entry in folded if asked and entry.startswith(asked)]
    return [folded[entry] for entry in begin[:count] or difflib.get_close_matches(asked, folded, n=count, cutoff=0.5)]
