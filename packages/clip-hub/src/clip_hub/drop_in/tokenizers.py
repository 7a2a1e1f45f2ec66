"""OpenCLIP's tokenizers by its names and arguments; the ids come from clip-core's, which are the same.

What this room leaves out: which model has which tokenizer (`sources`).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clip_core import get_config, list_models
from clip_core.config import HfTokenizerConfig
from clip_core.convert.checkpoint import read_json
from clip_core.errors import ConfigError
from clip_core.tokenizer import ClipTokenizer, HfTokenizer, reduce_texts
from clip_core.tokenizer.vocabulary import load_vocabulary
from clip_hub.repository import fetch_vocabulary

__all__ = ["DEFAULT_CONTEXT_LENGTH", "HFTokenizer", "SimpleTokenizer", "decode", "default_tokenizer", "tokenize"]

DEFAULT_CONTEXT_LENGTH = 77


class SimpleTokenizer(ClipTokenizer):
    """CLIP's own tokenizer with OpenCLIP's arguments.

    Args:
        bpe_path: None; the vocabulary is OpenAI's, which clip-core has.
        additional_special_tokens: None.
        context_length: how many ids a row holds.
        clean: "lower".
        reduction_mask: "" cuts texts that are too long at their end; "simple", "random", "shuffle" and "syntax" drop
            tokens as CLIPA does, drawn from NumPy's generator, which is seeded from torch's.

    Raises:
        ConfigError: another value.
    """

    def __init__(
        self,
        bpe_path: str | None = None,
        additional_special_tokens: Sequence[str] | None = None,
        context_length: int | None = DEFAULT_CONTEXT_LENGTH,
        clean: str = "lower",
        reduction_mask: str = "",
    ) -> None:
        for name, value, allowed in (
            ("bpe_path", bpe_path, None),
            ("additional_special_tokens", additional_special_tokens, None),
            ("clean", clean, "lower"),
        ):
            if value and value != allowed:
                raise ConfigError(f"SimpleTokenizer got {name}={value!r}; allowed: {allowed!r}, as CLIP's models have.")
        super().__init__(context_length or DEFAULT_CONTEXT_LENGTH)
        self.reduction_mask = reduction_mask

    @property
    def encoder(self) -> dict[str, int]:
        """The id of each token, spelled with a printing character for each byte as in OpenAI's vocabulary."""
        return _encoder()

    @property
    def decoder(self) -> dict[int, str]:
        """The token of each id, spelled as in `encoder`."""
        return {index: token for token, index in _encoder().items()}

    def __call__(self, texts: str | Sequence[str], context_length: int | None = None, truncate: bool = True) -> Tensor:
        """Texts -> int64 (B, context_length), see `ClipTokenizer`."""
        if not self.reduction_mask:
            return super().__call__(texts, context_length or None, truncate)
        generator = np.random.default_rng(int(torch.randint(1 << 31, ())))
        reduction: Any = self.reduction_mask
        return reduce_texts(self, texts, reduction, generator, context_length=context_length or None).tokens

    def __reduce__(self) -> tuple[Callable[..., SimpleTokenizer], tuple[Any, ...]]:
        return type(self), (None, None, self.context_length, "lower", self.reduction_mask)


class HFTokenizer(HfTokenizer):
    """A tokenizer of Hugging Face with OpenCLIP's arguments.

    Args:
        tokenizer_name: a Hub repository, or a folder with the vocabulary.
        context_length: how many ids a row holds.
        clean: what is done to a text first: "whitespace", "lower" or "canonicalize".
        strip_sep_token: replace what ends a text by padding (CLIPA).
        language: the token of a language before each text; None is the vocabulary's own (NLLB's "eng_Latn"), if any.
        cache_dir: where a download is kept.
        tokenizer_mode: None.

    Raises:
        ConfigError: another value, or a vocabulary that does not say what it pads with.
        DownloadError: the vocabulary could not be fetched.
    """

    def __init__(
        self,
        tokenizer_name: str | os.PathLike[str],
        context_length: int | None = DEFAULT_CONTEXT_LENGTH,
        clean: str = "whitespace",
        strip_sep_token: bool = False,
        language: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        tokenizer_mode: str | None = None,
    ) -> None:
        if tokenizer_mode:
            raise ConfigError(f"HFTokenizer got tokenizer_mode={tokenizer_mode!r}; allowed: None.")
        name = os.fspath(tokenizer_name)
        known = _known(name)
        config = HfTokenizerConfig(
            context_length=context_length or DEFAULT_CONTEXT_LENGTH,
            source=name if known is None else known.source,
            clean=clean,  # type: ignore[arg-type]  # the record checks it
            pad_id=0 if known is None else known.pad_id,
            drop_separator=strip_sep_token,
            language=language if language is not None else "" if known is None else known.language,
        )
        folder: Path | None = Path(name)
        if not Path(name).is_dir():
            folder = fetch_vocabulary(config, cache_dir=cache_dir)
        assert folder is not None  # it is one of Hugging Face
        if known is None:
            config = dataclasses.replace(config, pad_id=_padding(folder))
        super().__init__(config, folder)

    @classmethod
    def of(cls, config: HfTokenizerConfig, folder: Path) -> HFTokenizer:
        """The tokenizer that `config` states, with the vocabulary in `folder`."""
        made = cls.__new__(cls)
        HfTokenizer.__init__(made, config, folder)
        return made

    def __call__(self, texts: str | Sequence[str], context_length: int | None = None, truncate: bool = True) -> Tensor:
        """Texts -> int64 (B, context_length), see `HfTokenizer`."""
        return super().__call__(texts, context_length or None, truncate)

    def set_language(self, src_lang: str) -> None:
        """Put the token of `src_lang` before each text; raises `ConfigError` where the vocabulary has none."""
        self._set(dataclasses.replace(self.config, language=src_lang))

    def save_pretrained(self, dest: str | os.PathLike[str]) -> None:
        """Copy the files of the vocabulary into the folder `dest`, which is made where it is not there."""
        Path(dest).mkdir(parents=True, exist_ok=True)
        for path in self.files:
            shutil.copyfile(path, Path(dest) / path.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).of, (self.config, self.files[0].parent)


@functools.cache
def default_tokenizer() -> SimpleTokenizer:
    """The one that `tokenize` and `decode` use."""
    return SimpleTokenizer()


def tokenize(texts: str | Sequence[str], context_length: int = DEFAULT_CONTEXT_LENGTH) -> Tensor:
    """Texts -> int64 (B, context_length) of CLIP's own tokenizer; texts that are too long are cut."""
    return default_tokenizer()(texts, context_length)


def decode(output_ids: Tensor | Iterable[int]) -> str:
    """The text that one row of ids of CLIP's own tokenizer spells, with start, end and padding."""
    return default_tokenizer().decode(output_ids)


def _known(name: str) -> HfTokenizerConfig | None:
    """The tokenizer of one of our architectures that has its vocabulary from `name`; its owner may be left out."""
    for model in list_models():
        held = get_config(model).tokenizer
        if isinstance(held, HfTokenizerConfig) and name in (held.source, held.source.rpartition("/")[2]):
            return held
    return None


def _padding(folder: Path) -> int:
    """The id that the vocabulary in `folder` says it pads with."""
    token: Any = None
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if token is None and (folder / name).is_file():
            token = read_json(folder / name).get("pad_token")
    token = token.get("content") if isinstance(token, dict) else token
    ids: dict[str, int] = {}
    if (folder / "tokenizer.json").is_file():
        content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary = content.get("model", {}).get("vocab", {})
        ids = dict(vocabulary) if isinstance(vocabulary, dict) else {row[0]: i for i, row in enumerate(vocabulary)}
        ids |= {added["content"]: added["id"] for added in content.get("added_tokens", ())}
    elif (folder / "vocab.txt").is_file():
        lines = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
        ids = {line: index for index, line in enumerate(lines)}
    if token not in ids:
        raise ConfigError(
            f"{folder} does not say which id it pads with: tokenizer_config.json has pad_token {token!r}; state "
            "there a token that the vocabulary has."
        )
    return ids[token]


@functools.cache
def _encoder() -> dict[str, int]:
    # OpenAI's file writes bytes that do not print as the characters from U+0100 on, in their order.
    printing = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    silent = (byte for byte in range(256) if byte not in printing)
    spelled = str.maketrans({chr(byte): chr(256 + place) for place, byte in enumerate(silent)})
    return {token.translate(spelled): index for index, token in enumerate(load_vocabulary().tokens)}
