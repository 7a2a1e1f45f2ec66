"""What every tokenizer asks of its arguments, and how it names what is wrong with them."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Iterable, Sequence

import numpy as np
from torch import Tensor

from clip_core.errors import ConfigError

__all__ = ["checked_ids", "checked_length", "checked_texts", "shortened"]


def checked_length(context_length: int) -> int:
    """`context_length`; raises `ConfigError` unless it is an integer that has room for a token between two others."""
    if isinstance(context_length, bool) or not isinstance(context_length, int) or context_length < 3:
        raise ConfigError(
            f"context_length must be an integer of at least 3 (start of text, one token, end of text), "
            f"not {context_length!r}"
        )
    return context_length


def checked_texts(texts: str | Sequence[str]) -> Sequence[str]:
    """The texts as a sequence; raises `ConfigError` for anything but a string or a flat sequence of strings."""
    if isinstance(texts, str):
        return [texts]
    if not isinstance(texts, Sequence) or isinstance(texts, bytes | bytearray | memoryview):
        raise ConfigError(
            f"texts must be a string or a list of strings, not {shortened(texts)} ({type(texts).__name__}); "
            "decode bytes, and pass list(...) of anything else that holds strings"
        )
    if not set(map(type, texts)) <= {str}:
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise ConfigError(
                    f"texts must be a string or a flat list of strings, but texts[{index}] is {shortened(text)} "
                    f"({type(text).__name__})"
                )
    return texts


def checked_ids(ids: Tensor | Iterable[int], vocab_size: int) -> list[int]:
    """One row of ids as a list; raises `ConfigError` for another shape or an id outside the vocabulary."""
    if isinstance(ids, Tensor | np.ndarray):
        ids = ids.tolist()
    try:
        row = [operator.index(index) for index in ids]
    except TypeError:
        raise ConfigError(f"decode takes one row of integer ids, not {shortened(ids)}") from None
    for index in row:
        if not 0 <= index < vocab_size:
            raise ConfigError(f"token id {index} is not in the vocabulary, which has ids 0 to {vocab_size - 1}")
    return row


def shortened(value: object) -> str:
    """`value` as it would be typed, in at most about 80 characters."""
    shorten = reprlib.Repr()
    shorten.maxstring = shorten.maxother = 80
    return shorten.repr(value)
