"""What every tokenizer gives, whatever its vocabulary: the interface that models, evaluation and training rely on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

__all__ = ["TokenBatch", "Tokenizer"]


class TokenBatch(NamedTuple):
    """Token ids and how long each text really was.

    Attributes:
        tokens: int64 (B, context_length): start of text, the ids, end of text, then padding (zeros for CLIP's own); cut
            to the context, where what ends a text stays.
        lengths: int64 (B,): the number of tokens each text has uncut, what begins and ends it included (also an end
            that `drop_separator` then pads over); 2 for CLIP's own if it is empty.
    """

    tokens: Tensor
    lengths: Tensor

    @property
    def truncated(self) -> int:
        """How many of the texts did not fit the context."""
        return int((self.lengths > self.tokens.shape[1]).sum())


class Tokenizer(Protocol):
    """Texts to ids and back; made for one context length."""

    @property
    def context_length(self) -> int:
        """Number of ids in a row."""

    @property
    def vocab_size(self) -> int:
        """Ids run from 0 to this, not included."""

    def __call__(self, texts: str | Sequence[str], context_length: int | None = None, truncate: bool = True) -> Tensor:
        """int64 (B, context_length); a text that is too long is cut, or `TokenTooLong` without `truncate`."""

    def tokenize(self, texts: str | Sequence[str], context_length: int | None = None) -> TokenBatch:
        """The same ids, with the length that each text really has."""

    def decode(self, ids: Tensor | Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """One row of ids as text."""
