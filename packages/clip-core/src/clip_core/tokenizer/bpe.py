"""CLIP's byte-pair tokenizer: the ids of open_clip's `SimpleTokenizer`, many times faster.

A token never crosses white space, so a text's ids are those of its chunks between white space, one after another.
Chunks recur: a bounded cache maps each to the bytes of its ids, and a text costs one split, one look-up per chunk and
one join of bytes. A chunk seen for the first time is split into words by CLIP's pattern, and a word seen for the first
time is merged by the Rust `tokenizers`.

Left out: other cleanings than lower case, and other vocabularies. Dropping tokens for training is in `reductions`.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from clip_core.tokenizer.checks import checked_ids, checked_length, checked_texts
from clip_core.tokenizer.cleaning import clean
from clip_core.tokenizer.interface import TokenBatch
from clip_core.tokenizer.rows import RowTokenizer
from clip_core.tokenizer.vocabulary import END_OF_TEXT, END_OF_WORD, START_OF_TEXT, load_vocabulary

__all__ = ["ClipTokenizer"]

_PATTERN = START_OF_TEXT + "|" + END_OF_TEXT + r"|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

_BLOCK = 1024  # texts of a step: their rows stay in the processor's cache, and memory stays flat
_CACHE_SIZE = 1 << 17  # chunks: at most about 30 MB, and more than a caption data set's frequent ones
_CACHE_LENGTH = 64  # characters of a chunk: longer ones rarely recur


class ClipTokenizer(RowTokenizer):
    """The tokenizer of OpenAI's and OpenCLIP's CLIP models (Radford et al. 2021, https://arxiv.org/abs/2103.00020).

    Instances share one vocabulary and one word cache per process, may be used from several threads, and pickle as
    their context length alone.

    Args:
        context_length: how many ids a row holds, start and end of text included; at least 3.

    Attributes:
        vocab_size: 49,408.
        sot_token_id, eot_token_id: the ids of start of text (49406) and end of text (49407).
        all_special_ids: these two, in this order.
    """

    def __init__(self, context_length: int = 77) -> None:
        self.context_length = checked_length(context_length)
        self._chunks = _chunks()
        self._look_up = self._chunks.__getitem__
        self.vocab_size = len(self._chunks.tokens)
        self.sot_token_id = self.vocab_size - 2
        self.eot_token_id = self.vocab_size - 1
        self.all_special_ids = [self.sot_token_id, self.eot_token_id]
        self.prefix_ids, self.suffix_ids, self.pad_id = (self.sot_token_id,), (self.eot_token_id,), 0
        self._start, self._end = _packed([self.sot_token_id]), _packed([self.eot_token_id])

    def tokenize(self, texts: str | Sequence[str], context_length: int | None = None) -> TokenBatch:
        """The same ids, cut where they must be, with the uncut lengths: whoever cuts texts can say how many.

        Raises:
            ConfigError: `texts` holds something else than strings, or the context is too short.
        """
        width = self.context_length if context_length is None else checked_length(context_length)
        texts = checked_texts(texts)
        tokens = np.empty((len(texts), width), dtype=np.int64)
        lengths = np.empty(len(texts), dtype=np.int64)
        room = 2 * (width - 2)
        for first in range(0, len(texts), _BLOCK):
            packed = [self._encode(text) for text in texts[first : first + _BLOCK]]
            rows = [(self._start + ids[:room] + self._end).ljust(2 * width, b"\0") for ids in packed]
            block = slice(first, first + len(rows))
            tokens[block] = np.frombuffer(b"".join(rows), dtype=np.uint16).reshape(-1, width)
            lengths[block] = [len(ids) // 2 + 2 for ids in packed]
        return TokenBatch(torch.from_numpy(tokens), torch.from_numpy(lengths))

    def _encode(self, text: str) -> bytes:
        """The ids of `text` as the bytes of uint16."""
        return b"".join(map(self._look_up, clean(text).lower().split()))

    def bodies(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, cleaned first, uncut and without start and end of text."""
        return [array("H", self._encode(text)).tolist() for text in texts]

    def decode(self, ids: Tensor | Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """The text that ids spell: lower case, a space after each word, U+FFFD where bytes are no UTF-8.

        Args:
            ids: one-dimensional: a list, or a row of `__call__`.
            skip_special_tokens: leave out start of text, and end of text with all that follows it (the padding, whose
                id 0 is also that of "!"). By default every id is spelled, as open_clip does.

        Raises:
            ConfigError: an id is not in the vocabulary, or `ids` is not one-dimensional.
        """
        ids = checked_ids(ids, self.vocab_size)
        if skip_special_tokens:
            ids = ids[: ids.index(self.eot_token_id)] if self.eot_token_id in ids else ids
            ids = [index for index in ids if index != self.sot_token_id]
        spelled = "".join([self._chunks.tokens[index] for index in ids])
        return spelled.encode("latin-1").decode("utf-8", errors="replace").replace(END_OF_WORD, " ")

    def __reduce__(self) -> tuple[Callable[[int], ClipTokenizer], tuple[int]]:
        return type(self), (self.context_length,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(context_length={self.context_length})"


class _Chunks(dict[str, bytes]):
    """A bounded cache from a chunk of cleaned text to its ids, as the bytes of uint16; looking one up merges it.

    Threads may share it: each step is one operation of the dict, and losing an entry costs no more than merging again.
    """

    def __init__(self) -> None:
        import regex

        vocabulary = load_vocabulary()
        self.tokens = vocabulary.tokens
        self._merge = vocabulary.bpe.tokenize
        # Of the `regex` module, like open_clip's: it knows \p, and folds case so that U+017F is an "s".
        self._words = regex.compile(_PATTERN, regex.IGNORECASE).findall
        self._specials = {START_OF_TEXT: len(self.tokens) - 2, END_OF_TEXT: len(self.tokens) - 1}

    def __missing__(self, chunk: str) -> bytes:
        if chunk.isascii() and chunk.isalpha():
            ids = _packed([token.id for token in self._merge(chunk)])
        elif (words := self._words(chunk)) != [chunk]:
            ids = b"".join([self[word] for word in words])
        elif chunk in self._specials:
            ids = _packed([self._specials[chunk]])
        else:
            ids = _packed([token.id for token in self._merge(chunk.encode().decode("latin-1"))])
        if len(chunk) <= _CACHE_LENGTH:
            if len(self) >= _CACHE_SIZE:
                self.clear()
            self[chunk] = ids
        return ids


@functools.cache
def _chunks() -> _Chunks:
    return _Chunks()


def _packed(ids: list[int]) -> bytes:
    return array("H", ids).tobytes()
