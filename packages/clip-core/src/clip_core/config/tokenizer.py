"""Which tokenizer turns a text into a row of ids."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from clip_core.config.values import positive
from clip_core.schema import Schema

__all__ = ["ClipTokenizerConfig", "HfTokenizerConfig", "TiktokenTokenizerConfig", "TokenizerConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ClipTokenizerConfig(Schema):
    """OpenAI's byte-pair tokenizer; its vocabulary is package data of clip-core."""

    kind: ClassVar[str] = "clip_bpe"
    context_length: int

    def check(self) -> None:
        _check_context(self)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class HfTokenizerConfig(Schema):
    """A fast tokenizer of Hugging Face: a `tokenizer.json` that comes with the weights or from `source` on the Hub.

    `clean` is done to a text first: "whitespace" mends the encoding and collapses blanks, "lower" also lower-cases,
    "canonicalize" removes punctuation as well (SigLIP), "none" nothing. Rows are padded with `pad_id` to the context.
    With `drop_separator` the id that ends a text is replaced by padding (CLIPA). `language`, where it is not empty, is
    the token of a language that stands before each text (NLLB's "eng_Latn").
    """

    kind: ClassVar[str] = "hf"
    context_length: int
    source: str
    clean: Literal["none", "whitespace", "lower", "canonicalize"]
    pad_id: int
    drop_separator: bool = False
    language: str = ""

    def check(self) -> None:
        _check_context(self)
        self.require(bool(self.source), "source", "the Hub repository that has the vocabulary, org/name")
        self.require(self.pad_id >= 0, "pad_id", "0 or more")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TiktokenTokenizerConfig(Schema):
    """A byte-pair vocabulary in tiktoken's format with three ids of its own: start, end, padding.

    `name` is tiktoken's; its rank file is `name` and ".tiktoken". `clean` is as in `HfTokenizerConfig`.
    """

    kind: ClassVar[str] = "tiktoken"
    context_length: int
    name: str
    clean: Literal["none", "whitespace", "lower", "canonicalize"]
    bos_id: int
    eos_id: int
    pad_id: int

    def check(self) -> None:
        _check_context(self)
        positive(self, "bos_id", "eos_id", "pad_id")


TokenizerConfig = ClipTokenizerConfig | HfTokenizerConfig | TiktokenTokenizerConfig


def _check_context(config: ClipTokenizerConfig | HfTokenizerConfig | TiktokenTokenizerConfig) -> None:
    config.require(config.context_length >= 3, "context_length", "3 or more (start, one token, end)")
