"""Types and checks that the records of several files share."""

from __future__ import annotations

from typing import Literal

from clip_core.schema import Schema

__all__ = ["Activation", "Options", "Size", "positive", "size_pair"]

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
