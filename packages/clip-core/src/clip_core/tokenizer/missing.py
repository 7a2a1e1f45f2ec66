"""A tokenizer whose vocabulary is not at hand: a model without one still encodes images, and says what it lacks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from torch import Tensor

from clip_core.config import HfTokenizerConfig, TiktokenTokenizerConfig
from clip_core.errors import ConfigError
from clip_core.tokenizer.hf import HF_VOCABULARIES
from clip_core.tokenizer.interface import TokenBatch
from clip_core.tokenizer.tiktoken import rank_file

__all__ = ["MissingTokenizer", "missing_vocabulary"]


class MissingTokenizer:
    """Stands where a tokenizer would; whatever needs the vocabulary raises `ConfigError`, naming file and source."""

    def __init__(self, config: HfTokenizerConfig | TiktokenTokenizerConfig) -> None:
        self.config = config
        self.context_length = config.context_length

    @property
    def vocab_size(self) -> int:
        """Not known; raises `ConfigError`."""
        self._refuse()

    def __call__(self, texts: str | Sequence[str], context_length: int | None = None, truncate: bool = True) -> Tensor:
        """Raises `ConfigError`."""
        self._refuse()

    def tokenize(self, texts: str | Sequence[str], context_length: int | None = None) -> TokenBatch:
        """Raises `ConfigError`."""
        self._refuse()

    def decode(self, ids: Tensor | Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """Raises `ConfigError`."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise missing_vocabulary(self.config, None)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(context_length={self.context_length})"


def missing_vocabulary(config: HfTokenizerConfig | TiktokenTokenizerConfig, folder: Path | None) -> ConfigError:
    """The error for a vocabulary that `folder`, or nothing at all, was to hold."""
    if isinstance(config, TiktokenTokenizerConfig):
        file, origin = rank_file(config), f"tiktoken's encoding {config.name}"
        fetch = "download it as tiktoken publishes it"
    else:
        file = HF_VOCABULARIES[0]
        origin = f"the Hub repository {config.source}"
        fetch = "clip-hub fetches it with the weights"
    if folder is None:
        found = "and none is at hand"
    elif not folder.is_dir():
        found = f"and there is no folder {folder}"
    elif (folder / "sentencepiece.bpe.model").is_file():
        found = f"and of {folder} only sentencepiece.bpe.model could be one, which numbers tokens otherwise"
    else:
        found = f"and {folder} has none"
    return ConfigError(
        f"This tokenizer needs the vocabulary {file} of {origin}, {found}: {fetch}, or name the folder that has it, as "
        "in clip_core.create(name, tokenizer=FOLDER) or get_tokenizer(name, folder=FOLDER). Images need none."
    )
