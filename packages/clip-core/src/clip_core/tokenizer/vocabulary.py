"""The byte-pair vocabulary of CLIP: 512 byte symbols, 48,894 merges, two special tokens.

A merge joins two earlier tokens, and its place in the list is both its rank and, counted from 512, the id of what it
makes. So pairs of ids say it all: `vocabulary.bin` holds them as little-endian uint16, zlib-compressed, and
`vocabulary.json` beside it says where they come from and what their sha256 is. `tools/build_vocabulary.py` writes both.

No token has two merges that make it, and each merge comes after those that make its parts. This is why merging the
lowest rank first, one pair at a time (the Rust `tokenizers`), gives what CLIP's pass over all its occurrences gives.
"""

from __future__ import annotations

import functools
import hashlib
import json
import zlib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

from clip_core.errors import DataError

if TYPE_CHECKING:
    from tokenizers.models import BPE

__all__ = ["END_OF_TEXT", "END_OF_WORD", "START_OF_TEXT", "Vocabulary", "load_vocabulary", "unpack"]

START_OF_TEXT = "<start_of_text>"
END_OF_TEXT = "<end_of_text>"
END_OF_WORD = "</w>"

# The order of the 256 byte symbols: those that print first. Ids 256 to 511 are the same symbols ending a word.
_BYTE_ORDER = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTE_ORDER += [byte for byte in range(256) if byte not in set(_BYTE_ORDER)]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`tokens[id]` spells a token with one Latin-1 character per byte, `</w>` at the end of a word; `bpe` merges."""

    tokens: tuple[str, ...]
    bpe: BPE


def unpack(packed: bytes, sha256: str) -> bytes:
    """The pairs of ids that `packed` holds.

    Raises:
        DataError: they are not those whose `sha256` was recorded.
    """
    try:
        payload = zlib.decompress(packed)
    except zlib.error as error:
        raise DataError(f"clip-core's vocabulary.bin is damaged ({error}); install clip-core again") from error
    found = hashlib.sha256(payload).hexdigest()
    if found != sha256:
        raise DataError(f"clip-core's vocabulary.bin has sha256 {found}, not {sha256}; install clip-core again")
    return payload


@functools.cache
def load_vocabulary() -> Vocabulary:
    """Read, verify and build the packaged vocabulary; once per process, about 0.1 s.

    Raises:
        DataError: the packaged file is not the one whose sha256 is recorded beside it.
    """
    from tokenizers.models import BPE

    folder = resources.files(__package__)
    record = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
    payload = unpack((folder / "vocabulary.bin").read_bytes(), record["sha256"])

    symbols = [chr(byte) for byte in _BYTE_ORDER]
    tokens = symbols + [symbol + END_OF_WORD for symbol in symbols]
    merges = []
    pairs = np.frombuffer(payload, dtype="<u2")
    for left, right in zip(pairs[::2].tolist(), pairs[1::2].tolist(), strict=True):
        pair = (tokens[left], tokens[right])
        merges.append(pair)
        tokens.append(pair[0] + pair[1])
    ids = {token: index for index, token in enumerate(tokens)}
    # The word cache in front makes the model's own useless.
    bpe = BPE(ids, merges, end_of_word_suffix=END_OF_WORD, cache_capacity=0)
    return Vocabulary((*tokens, START_OF_TEXT, END_OF_TEXT), bpe)
