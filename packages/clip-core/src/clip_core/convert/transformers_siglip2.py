"""transformers' `Siglip2Model`, which takes images of any shape, -> SigLIP 2 with timm's NaFlex tower. Reading only.

Its patches come out of a linear layer, and its positions are a square table that is interpolated to each image.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from clip_core.config import ClipConfig, NaFlexConfig, PreprocessConfig, TextConfig, TokenizerConfig
from clip_core.convert.pairs import Pair, copies
from clip_core.convert.transformers_clip import nested_settings, text_pairs
from clip_core.convert.transformers_siglip import (
    TEXT,
    VISION,
    envelope,
    sizes_of,
    text_tower,
    trunk_options,
    trunk_pairs,
)
from clip_core.errors import ConfigError

__all__ = ["MAX_PATCHES", "from_settings", "pairs", "square_side"]

MAX_PATCHES = 256
"""Of an image processor that does not say how many patches an image may have."""

_VISION = {**VISION, "num_patches": 256}
# timm's towers of this kind, by width, layers, heads and width of the MLP; patches of 16, positions of 16 x 16.
_NAMES = {
    (768, 12, 12, 3072): "naflexvit_base_patch16_siglip",
    (1152, 27, 16, 4304): "naflexvit_so400m_patch16_siglip",
}
_PATCH_SIZE, _POSITIONS = 16, 16


def square_side(settings: Mapping[str, Any], max_patches: int) -> int:
    """Pixels of a side of the largest square that has at most `max_patches` patches."""
    return math.isqrt(max_patches) * int(nested_settings(settings, "vision_config", _VISION)["patch_size"])


def from_settings(
    settings: Mapping[str, Any], preprocess: PreprocessConfig, tokenizer: TokenizerConfig | None = None
) -> ClipConfig:
    """The model that a `config.json` of a Siglip2Model states; "max_num_patches" is of its image processor."""
    vision = nested_settings(settings, "vision_config", _VISION)
    text = text_tower(nested_settings(settings, "text_config", TEXT), vision["hidden_size"])
    grid = math.isqrt(vision["num_patches"])
    if grid**2 != vision["num_patches"]:
        raise ConfigError(f"vision_config.num_patches is {vision['num_patches']}; allowed: a square, such as 256.")
    name = _NAMES.get(sizes_of(vision)) if vision["patch_size"] == _PATCH_SIZE else None
    options = trunk_options(vision, name, "gelu_tanh")
    if grid != _POSITIONS:
        options = tuple(sorted({**dict(options), "pos_embed_grid_size": (grid, grid)}.items()))
    image = NaFlexConfig(
        name=name or _NAMES[768, 12, 12, 3072],
        image_size=preprocess.size,
        patch_size=vision["patch_size"],
        max_patches=settings.get("max_num_patches", MAX_PATCHES),
        pool="map",
        projection="none",
        options=options,
    )
    config = envelope(image, text, vision["hidden_size"], preprocess)
    return config if tokenizer is None else dataclasses.replace(config, tokenizer=tokenizer)


def pairs(config: ClipConfig) -> list[Pair]:
    """The table of the tensors of a Siglip2Model that `from_settings` read."""
    image, text = config.image, config.text
    assert isinstance(image, NaFlexConfig)
    assert isinstance(text, TextConfig)
    known = {name: sizes for sizes, name in _NAMES.items()}[image.name]
    ours, theirs = "visual.trunk.embeds.", "vision_model.embeddings."
    return [
        Pair(("logit_scale",), ("logit_scale",), "vector"),
        Pair(("logit_bias",), ("logit_bias",), "vector"),
        *copies({"proj": "patch_embedding"}, ours, theirs),
        Pair((f"{ours}pos_embed",), (f"{theirs}position_embedding.weight",), "grid"),
        *trunk_pairs(int(dict(image.options).get("depth", known[1]))),  # type: ignore[arg-type]
        *text_pairs(text, "text."),
        *copies({"text_projection": "text_model.head"}, "text.", ""),
    ]
