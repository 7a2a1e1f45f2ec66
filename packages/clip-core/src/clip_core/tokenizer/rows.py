"""From lists of ids to rows of one length: start, ids, end, padding. What all tokenizers share.

Shapes: B texts, S context length.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from clip_core.errors import ConfigError, TokenTooLong
from clip_core.tokenizer.checks import checked_length, checked_texts, shortened
from clip_core.tokenizer.interface import TokenBatch

__all__ = ["RowTokenizer"]


class RowTokenizer:
    """A tokenizer whose rows are `prefix_ids`, the ids of the text, `suffix_ids` and then `pad_id`.

    A text that does not fit loses ids at its end, never the suffix. Subclasses set the attributes and state `bodies`.
    """

    context_length: int
    vocab_size: int
    prefix_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...]
    pad_id: int

    def bodies(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, cleaned first, uncut and without prefix and suffix."""
        raise NotImplementedError

    def room(self, context_length: int | None = None) -> int:
        """How many ids of a text fit a row; raises `ConfigError` if `context_length` leaves none."""
        width = checked_length(self.context_length if context_length is None else context_length)
        room = width - len(self.prefix_ids) - len(self.suffix_ids)
        if room < 1:
            raise ConfigError(f"context_length {width} has no room: this tokenizer adds {width - room} ids to a text")
        return room

    def __call__(self, texts: str | Sequence[str], context_length: int | None = None, truncate: bool = True) -> Tensor:
        """Token ids of one or several texts.

        Args:
            texts: a text or a list of B texts.
            context_length: the length of a row; the tokenizer's own by default.
            truncate: whether a text that does not fit is cut, as open_clip does; what ends a row stays.

        Returns:
            int64 (B, context_length): start of text, the ids, end of text, then padding.

        Raises:
            TokenTooLong: a text does not fit and `truncate` is false.
            ConfigError: `texts` holds something else than strings, or the context is too short.
        """
        tokens, lengths = self.tokenize(texts, context_length)
        if not truncate and len(lengths) and int(lengths.max()) > tokens.shape[1]:
            row = int((lengths > tokens.shape[1]).nonzero()[0])
            text = texts if isinstance(texts, str) else texts[row]
            raise TokenTooLong(
                f"Text {row}, {shortened(text)}, has {int(lengths[row])} tokens, start and end of text included; the "
                f"context length is {tokens.shape[1]}. Shorten the text, or pass truncate=True to cut it."
            )
        return tokens

    def tokenize(self, texts: str | Sequence[str], context_length: int | None = None) -> TokenBatch:
        """The same ids, cut where they must be, with the uncut lengths: whoever cuts texts can say how many.

        Raises:
            ConfigError: `texts` holds something else than strings, or the context is too short.
        """
        bodies = self.bodies(checked_texts(texts))
        return self.fill(bodies, [len(body) for body in bodies], context_length)

    def encode(self, text: str) -> list[int]:
        """The ids of one text, uncut, without start and end of text.

        Raises:
            ConfigError: `text` is not a string.
        """
        if not isinstance(text, str):
            raise ConfigError(f"encode takes one string, not {shortened(text)}; call the tokenizer for a list of them")
        return self.bodies([text])[0]

    def fill(
        self, bodies: Sequence[Sequence[int]], uncut: Sequence[int], context_length: int | None = None
    ) -> TokenBatch:
        """Rows around `bodies`, each cut to its first `room` ids; `uncut` is how many ids each text had."""
        room, before, after = self.room(context_length), len(self.prefix_ids), len(self.suffix_ids)
        tokens = np.full((len(bodies), before + room + after), self.pad_id, dtype=np.int64)
        tokens[:, :before] = self.prefix_ids
        kept = np.minimum(np.fromiter(map(len, bodies), np.int64, len(bodies)), room)
        flat = itertools.chain.from_iterable(itertools.islice(body, room) for body in bodies)
        tokens[:, before : before + room][np.arange(room) < kept[:, None]] = np.fromiter(flat, np.int64, kept.sum())
        rows = np.arange(len(bodies))
        for place, index in enumerate(self.suffix_ids):
            tokens[rows, before + kept + place] = index
        lengths = torch.as_tensor(uncut, dtype=torch.int64).reshape(len(bodies)) + before + after
        return TokenBatch(torch.from_numpy(tokens), lengths)
