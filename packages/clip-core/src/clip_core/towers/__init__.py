"""Image and text towers: each maps one kind of input to (B, D) features. One file per kind of tower."""

from __future__ import annotations

from clip_core.towers.text import TextTower
from clip_core.towers.vit import VisionTransformer

__all__ = ["TextTower", "VisionTransformer"]
