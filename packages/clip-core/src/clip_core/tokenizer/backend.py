"""The Rust `tokenizers` asked for the ids of many texts: in parallel where it pays, and else without a thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

__all__ = ["encode_all"]

_BLOCK = 8192  # texts of a step: memory stays flat
_FEW = 16
"""Below this many texts no thread is started: a data worker that tokenizes a sample at a time has none to spare."""


def encode_all(backend: Backend, clean: Callable[[str], str], texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text, cleaned first, without what a post-processor would add."""
    if len(texts) < _FEW:
        return [backend.encode(clean(text), add_special_tokens=False).ids for text in texts]
    ids: list[list[int]] = []
    for first in range(0, len(texts), _BLOCK):
        block = [clean(text) for text in texts[first : first + _BLOCK]]
        ids += [found.ids for found in backend.encode_batch_fast(block, add_special_tokens=False)]
    return ids
