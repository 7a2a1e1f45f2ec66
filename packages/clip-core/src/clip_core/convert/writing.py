"""From a model to the files of another library's checkpoint: texts by name, and one file of tensors.

What is written is decided here, with nothing on disk yet; `storage.export` writes it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal, get_args

from torch import Tensor

from clip_core.config import ClipConfig, ClipTokenizerConfig, NaFlexConfig, TimmConfig
from clip_core.convert import transformers_clip, transformers_siglip
from clip_core.convert.openclip_writing import to_openclip_config
from clip_core.convert.pairs import to_theirs
from clip_core.convert.reading import OPENCLIP_CONFIG, OPENCLIP_WEIGHTS
from clip_core.convert.timm import to_timm
from clip_core.convert.transformers_preprocess import to_preprocessor
from clip_core.convert.transformers_tokenizer import clip_tokenizer_files
from clip_core.errors import ConfigError

__all__ = ["Export", "Layout", "to_layout"]

Layout = Literal["open_clip", "transformers", "timm"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """The files of a checkpoint."""

    texts: Mapping[str, str]
    """Name -> content."""
    weights: str
    """Name of the safetensors file."""
    tensors: dict[str, Tensor]
    mark: str
    """The file by which a folder of this layout is known."""
    has_tokenizer: bool
    """Whether the model's own tokenizer files belong beside these."""


def to_layout(layout: Layout, config: ClipConfig, tensors: Mapping[str, Tensor]) -> Export:
    """The files of a model's `tensors` in `layout`.

    Raises:
        ConfigError: unknown layout, or one that cannot express this model; the message says which part of it.
    """
    if layout == "open_clip":
        return Export(
            texts={OPENCLIP_CONFIG: _json(to_openclip_config(config))},
            weights=OPENCLIP_WEIGHTS,
            tensors=_separate(tensors),
            mark=OPENCLIP_CONFIG,
            has_tokenizer=True,
        )
    if layout == "transformers":
        return _transformers(config, tensors)
    if layout == "timm":
        settings, trunk = to_timm(config, tensors)
        return Export(
            texts={"config.json": _json(settings)},
            weights="model.safetensors",
            tensors=_separate(trunk),
            mark="config.json",
            has_tokenizer=False,
        )
    raise ConfigError(f"layout is {layout!r}; allowed: {', '.join(map(repr, get_args(Layout)))}.")


def _transformers(config: ClipConfig, tensors: Mapping[str, Tensor]) -> Export:
    siglip = isinstance(config.image, TimmConfig)
    family = transformers_siglip if siglip else transformers_clip
    try:
        if isinstance(config.image, NaFlexConfig):
            raise ConfigError("image.kind is 'naflex', and folders of Siglip2Model are read and not written.")
        settings = family.to_settings(config)
        preprocessor = to_preprocessor(config.preprocess, "Siglip" if siglip else "CLIP")
    except ConfigError as error:
        raise ConfigError(
            f"transformers cannot express this model: {error} Layouts that can: a bundle (clip_core.save), and "
            "'open_clip' for OpenCLIP's architectures."
        ) from error
    own = isinstance(config.tokenizer, ClipTokenizerConfig)
    texts = {"config.json": _json(settings), "preprocessor_config.json": _json(preprocessor)}
    if own:
        texts |= clip_tokenizer_files(config.text.context_length)
    return Export(
        texts=texts,
        weights="model.safetensors",
        tensors=_separate(to_theirs(family.pairs(config), tensors)),
        mark="config.json",
        has_tokenizer=not own,
    )


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` with each in memory of its own order, as safetensors wants them; parts of one are not copied twice."""
    return {key: value.contiguous() for key, value in tensors.items()}


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, allow_nan=False) + "\n"
