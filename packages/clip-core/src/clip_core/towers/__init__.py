"""Image and text towers: each maps one kind of input to (B, D) features. One file per kind of tower.

Towers that are made of another library's modules import it when one is built.
"""

from __future__ import annotations

from clip_core.config import (
    ImageConfig,
    ModernTextConfig,
    NaFlexConfig,
    ResNetConfig,
    TextConfig,
    TextTowerConfig,
    VitConfig,
)
from clip_core.towers.interface import ImageTower, TextTower
from clip_core.towers.modern import ModernTextTower
from clip_core.towers.resnet import ModifiedResNet
from clip_core.towers.text import TextTransformer
from clip_core.towers.vit import VisionTransformer

__all__ = ["ImageTower", "TextTower", "TextTransformer", "VisionTransformer", "build_image_tower", "build_text_tower"]


def build_image_tower(config: ImageConfig, embed_dim: int) -> ImageTower:
    """The image tower that `config` states, with features of width `embed_dim`."""
    if isinstance(config, VitConfig):
        return VisionTransformer(config, embed_dim)
    if isinstance(config, ResNetConfig):
        return ModifiedResNet(config, embed_dim)
    if isinstance(config, NaFlexConfig):
        from clip_core.towers.naflex import NaFlexTower

        return NaFlexTower(config, embed_dim)
    from clip_core.towers.timm_tower import TimmTower

    return TimmTower(config, embed_dim)


def build_text_tower(config: TextTowerConfig, embed_dim: int) -> TextTower:
    """The text tower that `config` states, with features of width `embed_dim`."""
    if isinstance(config, TextConfig):
        return TextTransformer(config, embed_dim)
    if isinstance(config, ModernTextConfig):
        return ModernTextTower(config, embed_dim)
    from clip_core.towers.hf import HfTextTower

    return HfTextTower(config, embed_dim)
