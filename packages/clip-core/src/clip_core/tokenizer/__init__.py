"""Text to token ids: the tokenizers that CLIP models were trained with.

OpenAI's byte-pair tokenizer (`ClipTokenizer`) is package data. The others read a vocabulary from a folder, such as a
bundle: those of Hugging Face and SentencePiece (`HfTokenizer`), and tiktoken's (`TiktokenTokenizer`). What a model does
with the ids is the text tower's affair; nothing here fetches a file.
"""

from __future__ import annotations

import os
from pathlib import Path

from clip_core.config import ClipTokenizerConfig, TiktokenTokenizerConfig, TokenizerConfig
from clip_core.errors import ConfigError
from clip_core.tokenizer.bpe import ClipTokenizer
from clip_core.tokenizer.hf import HF_VOCABULARIES, SETTINGS_FILES, HfTokenizer
from clip_core.tokenizer.interface import TokenBatch, Tokenizer
from clip_core.tokenizer.missing import MissingTokenizer, missing_vocabulary
from clip_core.tokenizer.reductions import Reduction, Tagger, reduce_texts
from clip_core.tokenizer.tiktoken import ENCODINGS, TiktokenTokenizer, rank_file

__all__ = [
    "TOKENIZER_FILES",
    "ClipTokenizer",
    "HfTokenizer",
    "MissingTokenizer",
    "Reduction",
    "Tagger",
    "TiktokenTokenizer",
    "TokenBatch",
    "Tokenizer",
    "build_tokenizer",
    "find_tokenizer",
    "reduce_texts",
    "tokenizer_files",
]

TOKENIZER_FILES = frozenset({*HF_VOCABULARIES, *SETTINGS_FILES, *(f"{name}.tiktoken" for name in ENCODINGS)})
"""The names of all files that a tokenizer may be read from."""


def build_tokenizer(config: TokenizerConfig, folder: str | os.PathLike[str] | None = None) -> Tokenizer:
    """The tokenizer that `config` states, with the vocabulary that `folder` has.

    CLIP's own takes no folder. The others read a `tokenizer.json`, BERT's `vocab.txt`, a SentencePiece model or
    tiktoken's rank file, whichever is there.

    Raises:
        ConfigError: the vocabulary is missing, or not the one that `config` means; the message says where it is from.
        DataError: a file is damaged.
    """
    if isinstance(config, ClipTokenizerConfig):
        if folder is not None:
            raise ConfigError(f"This tokenizer is CLIP's own, which clip-core has; leave out the folder {folder}.")
        return ClipTokenizer(context_length=config.context_length)
    if folder is None or not _has_vocabulary(config, Path(folder)):
        raise missing_vocabulary(config, None if folder is None else Path(folder))
    if isinstance(config, TiktokenTokenizerConfig):
        return TiktokenTokenizer(config, Path(folder))
    return HfTokenizer(config, Path(folder))


def find_tokenizer(config: TokenizerConfig, folder: str | os.PathLike[str] | None = None) -> Tokenizer:
    """As `build_tokenizer`, but a missing vocabulary raises only when it is needed: images need none."""
    if isinstance(config, ClipTokenizerConfig):
        return build_tokenizer(config)
    if folder is not None and _has_vocabulary(config, Path(folder)):
        return build_tokenizer(config, folder)
    return MissingTokenizer(config)


def tokenizer_files(tokenizer: Tokenizer) -> tuple[Path, ...]:
    """The files that `tokenizer` was read from, which must be kept with its model; none for CLIP's own.

    Raises:
        ConfigError: one of them is gone.
    """
    files: tuple[Path, ...] = getattr(tokenizer, "files", ())
    for path in files:
        if not path.is_file():
            raise ConfigError(f"The tokenizer was read from {path}, which is no longer there; put it back.")
    return files


def _has_vocabulary(config: TokenizerConfig, folder: Path) -> bool:
    names = (rank_file(config),) if isinstance(config, TiktokenTokenizerConfig) else HF_VOCABULARIES
    return any((folder / name).is_file() for name in names)
