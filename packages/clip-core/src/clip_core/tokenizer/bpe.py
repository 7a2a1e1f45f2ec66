"""CLIP's byte-pair tokenizer: the ids of open_clip's `SimpleTokenizer`, many times faster.

A token never crosses white space, so a text's ids are those of its chunks between white space, one after another.
Chunks recur: a bounded cache maps each to the bytes of its ids, and a batch is one split, one look-up per chunk, one
join of bytes and one scatter into the result. Chunks seen for the first time are split into words by CLIP's pattern
and merged by the Rust `tokenizers`.

Left out: open_clip's random, shuffled and syntax-aware text masking, other cleanings than lower case, and other
vocabularies.
"""

from __future__ import annotations

import functools
import operator
import reprlib
from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from clip_core.errors import ConfigError, TokenTooLong
from clip_core.tokenizer.cleaning import clean
from clip_core.tokenizer.vocabulary import END_OF_TEXT, END_OF_WORD, START_OF_TEXT, load_vocabulary

__all__ = ["ClipTokenizer", "TokenBatch"]

_PATTERN = START_OF_TEXT + "|" + END_OF_TEXT + r"|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"

# Stands between two texts of a batch. Cleaning never leaves a NUL, so no text holds it.
_BREAK = "\0"
_BREAK_ID = 0xFFFF

_BLOCK = 1024  # texts joined at once: the pieces stay in the processor's cache, and memory stays flat
_CACHE_SIZE = 1 << 17  # chunks: at most about 30 MB, and more than a caption data set's frequent ones
_CACHE_LENGTH = 64  # characters of a chunk: longer ones rarely recur


class TokenBatch(NamedTuple):
    """Token ids and how long each text really was.

    Attributes:
        tokens: int64 (B, context_length): start of text, the ids, end of text, then zeros; cut to the context, where
            the last id is end of text.
        lengths: int64 (B,): the number of tokens each text has uncut, start and end of text included; 2 if it is empty.
    """

    tokens: Tensor
    lengths: Tensor

    @property
    def truncated(self) -> int:
        """How many of the texts did not fit the context."""
        return int((self.lengths > self.tokens.shape[1]).sum())


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
        self._encoder = _chunk_encoder()
        self.vocab_size = len(self._encoder.tokens)
        self.sot_token_id = self._encoder.sot
        self.eot_token_id = self._encoder.eot
        self.all_special_ids = [self.sot_token_id, self.eot_token_id]

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
        tokens = np.zeros((len(texts), width), dtype=np.int64)
        lengths = np.empty(len(texts), dtype=np.int64)
        for start in range(0, len(texts), _BLOCK):
            rows = slice(start, start + _BLOCK)
            ids, lengths[rows] = self._encoder.encode(texts[rows])
            _scatter(ids, lengths[rows], tokens[rows], self.eot_token_id)
        return TokenBatch(torch.from_numpy(tokens), torch.from_numpy(lengths))

    def encode(self, text: str) -> list[int]:
        """The ids of one text, uncut, without start and end of text.

        Raises:
            ConfigError: `text` is not a string.
        """
        if not isinstance(text, str):
            raise ConfigError(f"encode takes one string, not {_shortened(text)}; call the tokenizer for a list of them")
        ids, _ = self._encoder.encode([text])
        return ids[1:-1].tolist()  # type: ignore[no-any-return]

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
        spelled = "".join([self._encoder.tokens[index] for index in ids])
        return spelled.encode("latin-1").decode("utf-8", errors="replace").replace(END_OF_WORD, " ")

    def __reduce__(self) -> tuple[Callable[[int], ClipTokenizer], tuple[int]]:
        return type(self), (self.context_length,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(context_length={self.context_length})"


class _ChunkEncoder:
    """Texts to one flat run of ids, through a bounded cache from a chunk to the bytes of its ids.

    Threads may share it: the cache is only read, added to, and replaced by an empty one.
    """

    def __init__(self) -> None:
        import regex

        vocabulary = load_vocabulary()
        self.tokens = vocabulary.tokens
        self.sot = len(self.tokens) - 2
        self.eot = len(self.tokens) - 1
        self._merge = vocabulary.bpe.tokenize
        # Of the `regex` module, like open_clip's: it knows \p, and folds case so that U+017F is an "s".
        self._words = regex.compile(_PATTERN, regex.IGNORECASE).findall
        self._start = array("H", [self.sot]).tobytes()
        self._cache = self._empty_cache()

    def _empty_cache(self) -> dict[str, bytes]:
        return {_BREAK: array("H", [_BREAK_ID, self.sot]).tobytes()}

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """uint16 (total,): start of text, ids, end of text of each text in turn; int64 (B,): how many of each text."""
        cleaned = [text if text.isascii() and text.isprintable() and "&" not in text else clean(text) for text in texts]
        chunks = f" {_BREAK} ".join(cleaned).lower().split()
        chunks.append(_BREAK)
        pieces: list[bytes | None] = list(map(self._cache.get, chunks))
        if not all(pieces):
            new = self._learn(chunk for chunk, piece in zip(chunks, pieces, strict=True) if piece is None)
            pieces = [new[chunk] if piece is None else piece for chunk, piece in zip(chunks, pieces, strict=True)]
        # The last break adds a start too many.
        ids = np.frombuffer(bytearray().join((self._start, *pieces)), dtype=np.uint16)[:-1]
        ends = np.flatnonzero(ids == _BREAK_ID)
        ids[ends] = self.eot
        return ids, np.diff(ends, prepend=-1)

    def _learn(self, chunks: Iterable[str]) -> dict[str, bytes]:
        """The ids of chunks that the cache lacks; it keeps those that are short."""
        new = {chunk: self._merge_chunk(chunk) for chunk in dict.fromkeys(chunks)}
        short = {chunk: ids for chunk, ids in islice(new.items(), _CACHE_SIZE) if len(chunk) <= _CACHE_LENGTH}
        if len(self._cache) + len(short) > _CACHE_SIZE:
            self._cache = self._empty_cache()
        self._cache.update(short)
        return new

    def _merge_chunk(self, chunk: str) -> bytes:
        ids: list[int] = []
        for word in (chunk,) if chunk.isascii() and chunk.isalpha() else self._words(chunk):
            if word == START_OF_TEXT:
                ids.append(self.sot)
            elif word == END_OF_TEXT:
                ids.append(self.eot)
            else:
                ids += [token.id for token in self._merge(word.encode().decode("latin-1"))]
        return array("H", ids).tobytes()


@functools.cache
def _chunk_encoder() -> _ChunkEncoder:
    return _ChunkEncoder()


def _scatter(ids: np.ndarray, lengths: np.ndarray, rows: np.ndarray, eot: int) -> None:
    """Write texts of `lengths` ids, one after another in `ids`, into the zeroed `rows`, cut to their width."""
    width = rows.shape[1]
    long = lengths > width
    if long.any():
        first = np.cumsum(lengths) - lengths
        ids = ids[np.arange(len(ids)) - np.repeat(first, lengths) < width]
    rows[np.arange(width) < lengths[:, None]] = ids
    rows[long, -1] = eot


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
