"""Text to token ids: the tokenizers that CLIP models were trained with.

Today that is OpenAI's byte-pair tokenizer (`ClipTokenizer`), which OpenAI's and OpenCLIP's models share. What a model
does with the ids is the text tower's affair.
"""

from __future__ import annotations

from clip_core.config import ClipTokenizerConfig, TokenizerConfig
from clip_core.errors import ConfigError
from clip_core.tokenizer.bpe import ClipTokenizer
from clip_core.tokenizer.interface import TokenBatch, Tokenizer

__all__ = ["ClipTokenizer", "TokenBatch", "Tokenizer", "build_tokenizer"]


def build_tokenizer(config: TokenizerConfig) -> Tokenizer:
    """The tokenizer that `config` states."""
    if isinstance(config, ClipTokenizerConfig):
        return ClipTokenizer(context_length=config.context_length)
    raise ConfigError(f"tokenizer {config.kind}")
