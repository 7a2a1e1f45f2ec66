"""EVA-CLIP (Sun et al. 2023): towers of masked image modelling, features read off the class token.

Columns: timm's name, image size; width, layers, heads of the text tower; features.
"""

from __future__ import annotations

from clip_core.config import ClipConfig, TimmConfig
from clip_core.presets.parts import model, text_tower

__all__ = ["PRESETS"]

# name: (timm's name, image size), (text width, text layers, text heads), features
_SIZES = {
    "EVA01-g-14": (("eva_giant_patch14_224", 224), (768, 12, 12), 1024),
    "EVA01-g-14-plus": (("eva_giant_patch14_224", 224), (1024, 24, 16), 1024),
    "EVA02-B-16": (("eva02_base_patch16_clip_224", 224), (512, 12, 8), 512),
    "EVA02-L-14": (("eva02_large_patch14_clip_224", 224), (768, 12, 12), 768),
    "EVA02-L-14-336": (("eva02_large_patch14_clip_336", 336), (768, 12, 12), 768),
    "EVA02-E-14": (("eva02_enormous_patch14_clip_224", 224), (1024, 24, 16), 1024),
    "EVA02-E-14-plus": (("eva02_enormous_patch14_clip_224", 224), (1280, 32, 20), 1024),
}


def _preset(image: tuple[str, int], text: tuple[int, int, int], embed_dim: int) -> ClipConfig:
    name, image_size = image
    tower = TimmConfig(name=name, image_size=image_size, pool="token", projection="trunk")
    return model(embed_dim, tower, text_tower(*text), layout="nested")


PRESETS: dict[str, ClipConfig] = {name: _preset(*row) for name, row in _SIZES.items()}
