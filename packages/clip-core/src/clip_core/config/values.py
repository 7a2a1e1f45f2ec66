"""Types and checks that the records of several files share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

from clip_core.errors import ConfigError
from clip_core.schema import Schema

__all__ = ["Activation", "Options", "Size", "as_argument", "positive", "size_pair"]

Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]

Size = int | tuple[int, int]
"""Pixels: one number for a square, or (height, width)."""

Option = bool | int | float | str | None | tuple[int, ...]
Options = tuple[tuple[str, Option], ...]
"""Named settings for another library's constructor, as pairs in a fixed order."""


def size_pair(size: Size) -> tuple[int, int]:
    """(height, width) of `size`."""
    return size if isinstance(size, tuple) else (size, size)


def positive(config: Schema, *fields: str) -> None:
    """Raise `ConfigError` unless each of these fields, or each number of a tuple, is above 0."""
    for field in fields:
        value = getattr(config, field)
        config.require(all(item > 0 for item in (value if isinstance(value, tuple) else (value,))), field, "above 0")


@contextlib.contextmanager
def as_argument(name: str) -> Iterator[None]:
    """Raise what is wrong with a record's field `name` as a fault of the caller's argument that is called so, too."""
    try:
        yield
    except ConfigError as error:
        record, found, rest = str(error).partition(f".{name} is ")
        if not found or not record.isidentifier():
            raise
        raise ConfigError(f"{name} is {rest}") from error
