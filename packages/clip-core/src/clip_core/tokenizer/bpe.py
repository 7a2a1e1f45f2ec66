"""CLIP's byte-pair tokenizer: the ids of open_clip's `SimpleTokenizer`, many times faster.

A token never crosses white space, so a text's ids are those of its chunks between white space, one after another.
Chunks recur: a bounded cache maps each to the bytes of its ids, and a text costs one split, one look-up per chunk and
one join of bytes. A chunk seen for the first time is split into words by CLIP's pattern, and a word seen for the first
time is merged by the Rust `tokenizers`.

Left out: open_clip's random, shuffled and syntax-aware text masking, other cleanings than lower case, and other
vocabularies.
"""

from __future__ import annotations

import functools
import operator
import reprlib
from array import array
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from clip_core.errors import ConfigError, TokenTooLong
from clip_core.tokenizer.cleaning import clean
from clip_core.tokenizer.interface import TokenBatch
from clip_core.tokenizer.vocabulary import END_OF_TEXT, END_OF_WORD, START_OF_TEXT, load_vocabulary

__all__ = ["ClipTokenizer"]

_PATTERN = START_OF_TEXT + "|" + END_OF_TEXT + r"|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

_BLOCK = 1024  # texts of a step: their rows stay in the processor's cache, and memory stays flat
_CACHE_SIZE = 1 << 17  # chunks: at most about 30 MB, and more than a caption data set's frequent ones
_CACHE_LENGTH = 64  # characters of a chunk: longer ones rarely recur


class ClipTokenizer:
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
        self.context_length = _checked_length(context_length)
        self._chunks = _chunks()
        self._look_up = self._chunks.__getitem__
        self.vocab_size = len(self._chunks.tokens)
        self.sot_token_id = self.vocab_size - 2
        self.eot_token_id = self.vocab_size - 1
        self.all_special_ids = [self.sot_token_id, self.eot_token_id]
        self._start, self._end = _packed([self.sot_token_id]), _packed([self.eot_token_id])

    def __call__(self, texts: str | Sequence[str], context_length: int | None = None, truncate: bool = True) -> Tensor:
        """Token ids of one or several texts.

        Args:
            texts: a text or a list of B texts.
            context_length: the length of a row; the tokenizer's own by default.
            truncate: whether a text that does not fit is cut, as open_clip does; its last id is then end of text.

        Returns:
            int64 (B, context_length): start of text, the ids, end of text, then zeros.

        Raises:
            TokenTooLong: a text does not fit and `truncate` is false.
            ConfigError: `texts` holds something else than strings, or the context is too short.
        """
        tokens, lengths = self.tokenize(texts, context_length)
        if not truncate and len(lengths) and int(lengths.max()) > tokens.shape[1]:
            row = int((lengths > tokens.shape[1]).nonzero()[0])
            text = texts if isinstance(texts, str) else texts[row]
            raise TokenTooLong(
                f"Text {row}, {_shortened(text)}, has {int(lengths[row])} tokens, start and end of text included; the "
                f"context length is {tokens.shape[1]}. Shorten the text, or pass truncate=True to cut it."
            )
        return tokens

    def tokenize(self, texts: str | Sequence[str], context_length: int | None = None) -> TokenBatch:
        """The same ids, cut where they must be, with the uncut lengths: whoever cuts texts can say how many.

        Raises:
            ConfigError: `texts` holds something else than strings, or the context is too short.
        """
        width = self.context_length if context_length is None else _checked_length(context_length)
        texts = _checked_texts(texts)
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

    def encode(self, text: str) -> list[int]:
        """The ids of one text, uncut, without start and end of text.

        Raises:
            ConfigError: `text` is not a string.
        """
        if not isinstance(text, str):
            raise ConfigError(f"encode takes one string, not {_shortened(text)}; call the tokenizer for a list of them")
        return array("H", self._encode(text)).tolist()

    def decode(self, ids: Tensor | Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """The text that ids spell: lower case, a space after each word, U+FFFD where bytes are no UTF-8.

        Args:
            ids: one-dimensional: a list, or a row of `__call__`.
            skip_special_tokens: leave out start of text, and end of text with all that follows it (the padding, whose
                id 0 is also that of "!"). By default every id is spelled, as open_clip does.

        Raises:
            ConfigError: an id is not in the vocabulary, or `ids` is not one-dimensional.
        """
        if isinstance(ids, Tensor | np.ndarray):
            ids = ids.tolist()
        try:
            ids = [operator.index(index) for index in ids]
        except TypeError:
            raise ConfigError(f"decode takes one row of integer ids, not {_shortened(ids)}") from None
        if skip_special_tokens:
            ids = ids[: ids.index(self.eot_token_id)] if self.eot_token_id in ids else ids
            ids = [index for index in ids if index != self.sot_token_id]
        for index in ids:
            if not 0 <= index < self.vocab_size:
                raise ConfigError(
                    f"token id {index} is not in the vocabulary, which has ids 0 to {self.vocab_size - 1}"
                )
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


def _checked_length(context_length: int) -> int:
    if isinstance(context_length, bool) or not isinstance(context_length, int) or context_length < 3:
        raise ConfigError(
            f"context_length must be an integer of at least 3 (start of text, one token, end of text), "
            f"not {context_length!r}"
        )
    return context_length


def _checked_texts(texts: str | Sequence[str]) -> Sequence[str]:
    if isinstance(texts, str):
        return [texts]
    if not isinstance(texts, Sequence) or isinstance(texts, bytes | bytearray | memoryview):
        raise ConfigError(
            f"texts must be a string or a list of strings, not {_shortened(texts)} ({type(texts).__name__}); "
            "decode bytes, and pass list(...) of anything else that holds strings"
        )
    if not set(map(type, texts)) <= {str}:
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise ConfigError(
                    f"texts must be a string or a flat list of strings, but texts[{index}] is {_shortened(text)} "
                    f"({type(text).__name__})"
                )
    return texts


def _shortened(value: object) -> str:
    shorten = reprlib.Repr()
    shorten.maxstring = shorten.maxother = 80
    return shorten.repr(value)
