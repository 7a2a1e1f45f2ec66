"""tiktoken's vocabularies, read from their rank files by the Rust `tokenizers`; tiktoken itself is not needed.

A rank file has a line for each token: its bytes in base 64, and its id, which is also the rank at which two neighbours
are joined into it. Start, end and padding are three ids behind them, as in OpenCLIP. Left out: encodings other than
r50k_base, whose rules of splitting are others.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

from clip_core.config import TiktokenTokenizerConfig
from clip_core.errors import ConfigError, DataError
from clip_core.tokenizer.backend import encode_all
from clip_core.tokenizer.checks import checked_ids
from clip_core.tokenizer.cleaning import cleaner
from clip_core.tokenizer.rows import RowTokenizer

__all__ = ["ENCODINGS", "TiktokenTokenizer", "rank_file"]

ENCODINGS = ("r50k_base",)


def rank_file(config: TiktokenTokenizerConfig) -> str:
    """The name of the file that holds the vocabulary of `config`."""
    return f"{config.name}.tiktoken"


class TiktokenTokenizer(RowTokenizer):
    """The rank file of a folder, with the three ids of `config`; special tokens in a text are plain text.

    May be used from several threads; pickles as its configuration and its folder.

    Attributes:
        files: what it was read from, to be kept with a model.
        all_special_ids: the ids of end of text, padding and start of text.

    Raises:
        ConfigError: the encoding is not supported, or the ids are among those of the vocabulary.
        DataError: the file is damaged.
    """

    def __init__(self, config: TiktokenTokenizerConfig, folder: Path) -> None:
        from tokenizers import Tokenizer as Backend
        from tokenizers import models, pre_tokenizers

        if config.name not in ENCODINGS:
            raise ConfigError(
                f"The tiktoken encoding {config.name!r} is not supported; allowed: {', '.join(ENCODINGS)}."
            )
        path = folder / rank_file(config)
        self.config, self.files, self.context_length = config, (path,), config.context_length
        self._tokens = _read_ranks(path)
        self.prefix_ids, self.suffix_ids, self.pad_id = (config.bos_id,), (config.eos_id,), config.pad_id
        self.all_special_ids = [config.eos_id, config.pad_id, config.bos_id]
        self.vocab_size = 1 + max(self.all_special_ids)
        if min(self.all_special_ids) < len(self._tokens) or len(set(self.all_special_ids)) < 3:
            raise ConfigError(
                f"{path} has ids 0 to {len(self._tokens) - 1}, so start {config.bos_id}, end {config.eos_id} and "
                f"padding {config.pad_id} are not three ids behind them."
            )
        self._clean = cleaner(config.clean)
        # GPT-2's: the pieces are those of r50k_base, their bytes spelled as letters.
        pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        letters = _letters()
        spelled = ["".join([letters[byte] for byte in token]) for token in self._tokens]
        ids = {token: index for index, token in enumerate(spelled)}
        # tiktoken takes a piece that is a token as it is, before any joining.
        self._backend = Backend(models.BPE(ids, _merges(ids), ignore_merges=True))
        self._backend.pre_tokenizer = pieces

    def bodies(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, cleaned first, uncut and without start and end of text."""
        return encode_all(self._backend, self._clean, texts)

    def decode(self, ids: Tensor | Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """The text that one row of ids spells, U+FFFD where bytes are no UTF-8.

        Start, end and padding have no spelling and are left out either way, as open_clip does.

        Raises:
            ConfigError: an id is not in the vocabulary, or `ids` is not one-dimensional.
        """
        row = checked_ids(ids, self.vocab_size)
        spelled = b"".join([self._tokens[index] for index in row if index < len(self._tokens)])
        return spelled.decode("utf-8", errors="replace")

    def __reduce__(self) -> tuple[type[TiktokenTokenizer], tuple[TiktokenTokenizerConfig, Path]]:
        return type(self), (self.config, self.files[0].parent)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.files[0])!r}, context_length={self.context_length})"


def _read_ranks(path: Path) -> list[bytes]:
    """The bytes of each token; raises `DataError` unless each id from 0 on has one and every byte is a token."""
    tokens: dict[int, bytes] = {}
    try:
        for line in path.read_bytes().splitlines():
            if line:
                token, rank = line.split()
                tokens[int(rank)] = base64.b64decode(token, validate=True)
    except (ValueError, binascii.Error) as error:
        raise DataError(f"{path} is no rank file of tiktoken, or a damaged one: {error}.") from error
    if sorted(tokens) != list(range(len(tokens))):
        raise DataError(f"{path} is no rank file of tiktoken, or a damaged one: ids are missing.")
    if len({token for token in tokens.values() if len(token) == 1}) < 256:
        raise DataError(f"{path} is no rank file of tiktoken, or a damaged one: it lacks single bytes.")
    return [tokens[index] for index in range(len(tokens))]


def _letters() -> list[str]:
    """The letter that GPT-2 writes for each byte: itself where it prints, else one from U+0100 on."""
    prints = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(prints)]
    letters = {byte: chr(byte) for byte in prints} | {byte: chr(0x100 + place) for place, byte in enumerate(others)}
    return [letters[byte] for byte in range(256)]


def _merges(ids: dict[str, int]) -> list[tuple[str, str]]:
    """Every pair of tokens that makes a third, by the id of the third: tiktoken joins any such pair."""
    return [
        (token[:index], token[index:])
        for token in sorted(ids, key=ids.__getitem__)
        for index in range(1, len(token))
        if token[:index] in ids and token[index:] in ids
    ]
