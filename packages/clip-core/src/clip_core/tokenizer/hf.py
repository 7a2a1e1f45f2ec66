"""Tokenizers of Hugging Face: a `tokenizer.json`, or what it can be made of, read by the Rust `tokenizers`.

Rows are those of open_clip's `HFTokenizer` on the same files: cleaned, cut at the right so that what ends a text stays,
padded at the right. transformers is not needed. Left out: fetching vocabularies, which is clip-hub's affair.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from clip_core.config import HfTokenizerConfig
from clip_core.errors import ConfigError, DataError, nearest
from clip_core.tokenizer.backend import encode_all
from clip_core.tokenizer.checks import checked_ids
from clip_core.tokenizer.cleaning import cleaner
from clip_core.tokenizer.interface import TokenBatch
from clip_core.tokenizer.rows import RowTokenizer
from clip_core.tokenizer.sentencepiece import read_model

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

__all__ = ["HF_VOCABULARIES", "SETTINGS_FILES", "HfTokenizer"]

# In order of preference; where there is a tokenizer.json the others are not read.
HF_VOCABULARIES = ("tokenizer.json", "vocab.txt", "spiece.model", "tokenizer.model", "sentencepiece.model")
SETTINGS_FILES = ("tokenizer_config.json", "special_tokens_map.json")


class HfTokenizer(RowTokenizer):
    """The tokenizer in a folder, by the rules of `config`.

    May be used from several threads; pickles as its configuration and its folder.

    Args:
        config: how texts are cleaned, padded and ended.
        folder: has one of `HF_VOCABULARIES`, and tokenizer_config.json and special_tokens_map.json if they are there.

    Attributes:
        files: what it was read from, to be kept with a model.
        prefix_ids, suffix_ids: what stands before and after the ids of a text.
        all_special_ids: these, the padding, and what the vocabulary calls special.

    Raises:
        ConfigError: the folder has no such file, or the vocabulary cannot be what `config` means.
        DataError: a file is damaged.
    """

    def __init__(self, config: HfTokenizerConfig, folder: Path) -> None:
        path = next((folder / name for name in HF_VOCABULARIES if (folder / name).is_file()), None)
        if path is None:
            raise ConfigError(f"{folder} has no vocabulary; allowed: one of {', '.join(HF_VOCABULARIES)}.")
        self.files = (path, *(folder / name for name in SETTINGS_FILES if (folder / name).is_file()))
        self._settings = _read_settings(self.files[1:])
        self._backend = _read_backend(path, self._settings)
        self.vocab_size = 1 + max(self._backend.get_vocab().values())
        self._ends = _read_ends(self._backend, path)
        self._set(config)

    def _set(self, config: HfTokenizerConfig) -> None:
        self.config, self.context_length, self.pad_id = config, config.context_length, config.pad_id
        self._clean: Callable[[str], str] = cleaner(config.clean)
        self.prefix_ids, self.suffix_ids = self._ends
        if config.language:
            # Older files put the language behind the end; the models were trained with it in front.
            self.prefix_ids, self.suffix_ids = (self._language_id(config.language),), self._ends[1][:1]
        where = self.files[0]
        if self.pad_id >= self.vocab_size:
            raise ConfigError(
                f"{where} has ids 0 to {self.vocab_size - 1}, but rows are to be padded with {self.pad_id}: it is not "
                f"the vocabulary of {config.source}."
            )
        stated = self._token_id(self._settings.get("pad_token"))
        if stated is not None and stated != self.pad_id:
            raise ConfigError(
                f"{where.parent} pads with id {stated}, but the model was trained with {self.pad_id}: it is not the "
                f"vocabulary of {config.source}."
            )
        if config.drop_separator and not self.suffix_ids:
            raise ConfigError(f"{where} ends texts with no id, so drop_separator has nothing to drop.")
        added = self._backend.get_added_tokens_decoder().items()
        special = {index for index, token in added if token.special}
        self.all_special_ids = sorted({*special, *self.prefix_ids, *self.suffix_ids, self.pad_id})

    def bodies(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, cleaned first, uncut and without what begins and ends a row."""
        return encode_all(self._backend, self._clean, texts)

    def fill(
        self, bodies: Sequence[Sequence[int]], uncut: Sequence[int], context_length: int | None = None
    ) -> TokenBatch:
        """As `RowTokenizer.fill`; with `drop_separator` the end, wherever it stands, then turns into padding."""
        batch = super().fill(bodies, uncut, context_length)
        if self.config.drop_separator:
            batch.tokens[batch.tokens == self.suffix_ids[-1]] = self.pad_id
        return batch

    def decode(self, ids: Tensor | Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """The text that one row of ids spells, as the vocabulary's own decoder joins it.

        Args:
            ids: one-dimensional: a list, or a row of `__call__`.
            skip_special_tokens: leave out `all_special_ids`.

        Raises:
            ConfigError: an id is not in the vocabulary, or `ids` is not one-dimensional.
        """
        row = checked_ids(ids, self.vocab_size)
        if skip_special_tokens:
            special = set(self.all_special_ids)
            row = [index for index in row if index not in special]
        text: str = self._backend.decode(row, skip_special_tokens=skip_special_tokens)
        return text

    def with_language(self, language: str) -> HfTokenizer:
        """This tokenizer with the token of another language before each text, such as NLLB's "fra_Latn".

        Raises:
            ConfigError: the vocabulary has no such token.
        """
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)  # the vocabulary is shared
        other._set(dataclasses.replace(self.config, language=language))
        return other

    def _token_id(self, token: object) -> int | None:
        """Of a token as settings state one: a string, or a dict with its "content"."""
        token = token.get("content") if isinstance(token, dict) else token
        return self._backend.token_to_id(token) if isinstance(token, str) else None

    def _language_id(self, language: str) -> int:
        index = self._backend.token_to_id(language)
        if index is None:
            added = [token.content for token in self._backend.get_added_tokens_decoder().values()]
            close = nearest(language, added)
            hint = f"did you mean {', '.join(close)}?" if close else "it knows no languages."
            raise ConfigError(f"{self.files[0]} has no token for the language {language!r}; {hint}")
        return int(index)

    def __reduce__(self) -> tuple[type[HfTokenizer], tuple[HfTokenizerConfig, Path]]:
        return type(self), (self.config, self.files[0].parent)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.files[0])!r}, context_length={self.context_length})"


def _read_settings(files: Iterable[Path]) -> dict[str, Any]:
    """What the first file that states a setting says of it."""
    settings: dict[str, Any] = {}
    for path in files:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path} is not valid JSON: {error}.") from error
        if not isinstance(content, dict):
            raise DataError(f"{path} holds {type(content).__name__}, not an object with settings.")
        settings = {**content, **settings}
    return settings


def _read_backend(path: Path, settings: dict[str, Any]) -> Backend:
    from tokenizers import Tokenizer as Backend

    if path.suffix == ".model":
        return read_model(path)
    if path.name == "vocab.txt":
        return _word_piece(path, settings)
    try:
        backend = Backend.from_file(str(path))
    except Exception as error:  # the binding raises nothing narrower
        raise DataError(f"{path} cannot be read: {error}.") from error
    # Rows are cut and padded here, whatever the file says.
    backend.no_truncation()
    backend.no_padding()
    return backend


def _word_piece(path: Path, settings: dict[str, Any]) -> Backend:
    """BERT's tokenizer (Devlin et al. 2018) from one token a line; lower case unless the settings say otherwise."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

    lines = path.read_text(encoding="utf-8").split("\n")
    vocabulary = {token: index for index, token in enumerate(lines[:-1] if lines[-1] == "" else lines)}
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    missing = [token for token in ("[UNK]", "[CLS]", "[SEP]") if token not in vocabulary]
    if missing:
        raise DataError(f"{path} is not BERT's vocabulary: it has no line {missing[0]}.")
    backend = Backend(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(
        lowercase=settings.get("do_lower_case", True),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.add_special_tokens([token for token in specials if token in vocabulary])
    backend.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    return backend


def _read_ends(backend: Backend, path: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids before and after a text: tokenizer.json says it, and settings do not, as transformers 5 has it."""
    if backend.post_processor is None:
        return (), ()
    return _ends(json.loads(backend.post_processor.__getstate__()), path)


def _ends(processor: dict[str, Any], path: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    kind = processor.get("type")
    if kind == "TemplateProcessing":
        ids = {name: special["ids"] for name, special in processor["special_tokens"].items()}
        before: list[int] = []
        behind: list[int] = []
        side = before
        for piece in processor["single"]:
            if "Sequence" in piece:
                side = behind
            else:
                side += ids[piece["SpecialToken"]["id"]]
        return tuple(before), tuple(behind)
    if kind in ("BertProcessing", "RobertaProcessing"):
        return (processor["cls"][1],), (processor["sep"][1],)
    if kind == "ByteLevel":
        return (), ()
    if kind == "Sequence":
        ends = [_ends(inner, path) for inner in processor["processors"]]
        return tuple(i for left, _ in reversed(ends) for i in left), tuple(i for _, right in ends for i in right)
    raise DataError(f"{path} ends texts with a {kind!r} step, which is not known here.")
