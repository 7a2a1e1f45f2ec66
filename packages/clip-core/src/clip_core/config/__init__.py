"""What a CLIP model is, as data: one envelope, one record per kind of tower, final values and no inheritance.

Units: sizes in pixels or tokens, widths in features. The records are strict (see `schema`); `ClipConfig.to_json`
is what a bundle's `clip_config.json` holds. A field with a default is an option that Radford et al. 2021 did not
have; the default is their model. Names and their numbers are in `presets`.
"""

from __future__ import annotations

from clip_core.config.image import AttentionPoolConfig, ImageConfig, NaFlexConfig, ResNetConfig, TimmConfig, VitConfig
from clip_core.config.model import ClipConfig
from clip_core.config.preprocess import PreprocessConfig
from clip_core.config.text import (
    DecoderConfig,
    HfTextConfig,
    ModernTextConfig,
    TextConfig,
    TextTowerConfig,
)
from clip_core.config.tokenizer import (
    ClipTokenizerConfig,
    HfTokenizerConfig,
    TiktokenTokenizerConfig,
    TokenizerConfig,
)
from clip_core.config.values import Activation, Options, Size, size_pair

__all__ = [
    "Activation",
    "AttentionPoolConfig",
    "ClipConfig",
    "ClipTokenizerConfig",
    "DecoderConfig",
    "HfTextConfig",
    "HfTokenizerConfig",
    "ImageConfig",
    "ModernTextConfig",
    "NaFlexConfig",
    "Options",
    "PreprocessConfig",
    "ResNetConfig",
    "Size",
    "TextConfig",
    "TextTowerConfig",
    "TiktokenTokenizerConfig",
    "TimmConfig",
    "TokenizerConfig",
    "VitConfig",
    "size_pair",
]
