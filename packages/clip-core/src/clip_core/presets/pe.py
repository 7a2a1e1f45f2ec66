"""Perception Encoder, PE-Core (Bolya et al. 2025): rotary positions, pooling by attention.

Columns: timm's name, image size; width, layers, heads, context length of the text tower; features.
"""

from __future__ import annotations

from clip_core.config import ClipConfig, TimmConfig
from clip_core.presets.parts import INCEPTION_MEAN, INCEPTION_STD, model, text_tower

__all__ = ["PRESETS"]

# name: (timm's name, image size), (text width, text layers, text heads, context length), features
_SIZES = {
    "PE-Core-T-16-384": (("vit_pe_core_tiny_patch16_384", 384), (512, 12, 8, 32), 512),
    "PE-Core-S-16-384": (("vit_pe_core_small_patch16_384", 384), (512, 12, 8, 32), 512),
    "PE-Core-B-16": (("vit_pe_core_base_patch16_224", 224), (1024, 24, 16, 32), 1024),
    "PE-Core-L-14-336": (("vit_pe_core_large_patch14_336", 336), (1024, 24, 16, 32), 1024),
    "PE-Core-bigG-14-448": (("vit_pe_core_gigantic_patch14_448", 448), (1280, 24, 20, 72), 1280),
}


def _preset(image: tuple[str, int], text: tuple[int, int, int, int], embed_dim: int) -> ClipConfig:
    name, image_size = image
    return model(
        embed_dim,
        TimmConfig(name=name, image_size=image_size, pool="map", projection="trunk"),
        text_tower(*text),
        layout="nested",
        mean=INCEPTION_MEAN,
        std=INCEPTION_STD,
        interpolation="bilinear",
        resize_mode="squash",
    )


PRESETS: dict[str, ClipConfig] = {name: _preset(*row) for name, row in _SIZES.items()}
