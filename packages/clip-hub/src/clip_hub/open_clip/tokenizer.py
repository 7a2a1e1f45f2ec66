"""OpenCLIP's names for what is in `clip_hub.drop_in.tokenizers`."""

from __future__ import annotations

from clip_hub.drop_in.tokenizers import (
    DEFAULT_CONTEXT_LENGTH,
    HFTokenizer,
    SimpleTokenizer,
    decode,
    default_tokenizer,
    tokenize,
)

__all__ = ["DEFAULT_CONTEXT_LENGTH", "HFTokenizer", "SimpleTokenizer", "decode", "tokenize"]


def __getattr__(name: str) -> SimpleTokenizer:
    if name == "_tokenizer":  # CLIP_benchmark imports it by this name
        return default_tokenizer()
    raise AttributeError(f"clip_hub.open_clip.tokenizer has no {name!r}")
