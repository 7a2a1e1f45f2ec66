"""ViTamin (Chen et al. 2024): two convolutional stages, then a transformer, pooled by the mean.

Columns: timm's name, image size; width, layers, heads of the text tower; features. `-LTT` were trained by
locked-text tuning, with the text tower of a larger model.
"""

from __future__ import annotations

from clip_core.config import ClipConfig, TimmConfig
from clip_core.presets.parts import model, text_tower

__all__ = ["PRESETS"]

_S, _B, _L, _H, _XL = (384, 12, 6), (512, 12, 8), (768, 12, 12), (1024, 24, 16), (1152, 27, 16)

# name: (timm's name, image size), (text width, text layers, text heads), features
_SIZES = {
    "ViTamin-S": (("vitamin_small_224", 224), _S, 384),
    "ViTamin-S-LTT": (("vitamin_small_224", 224), _L, 768),
    "ViTamin-B": (("vitamin_base_224", 224), _B, 512),
    "ViTamin-B-LTT": (("vitamin_base_224", 224), _L, 768),
    "ViTamin-L": (("vitamin_large_224", 224), _L, 768),
    "ViTamin-L-256": (("vitamin_large_256", 256), _L, 768),
    "ViTamin-L-336": (("vitamin_large_336", 336), _L, 768),
    "ViTamin-L-384": (("vitamin_large_384", 384), _L, 768),
    "ViTamin-L2": (("vitamin_large2_224", 224), _H, 1024),
    "ViTamin-L2-256": (("vitamin_large2_256", 256), _H, 1024),
    "ViTamin-L2-336": (("vitamin_large2_336", 336), _H, 1024),
    "ViTamin-L2-384": (("vitamin_large2_384", 384), _H, 1024),
    "ViTamin-XL-256": (("vitamin_xlarge_256", 256), _XL, 1152),
    "ViTamin-XL-336": (("vitamin_xlarge_336", 336), _XL, 1152),
    # OpenCLIP's configuration states 256 pixels under this name; the tower has no positions and takes either.
    "ViTamin-XL-384": (("vitamin_xlarge_384", 256), _XL, 1152),
}


def _preset(image: tuple[str, int], text: tuple[int, int, int], embed_dim: int) -> ClipConfig:
    name, image_size = image
    tower = TimmConfig(name=name, image_size=image_size, pool="", projection="linear", drop_path=0.1)
    return model(embed_dim, tower, text_tower(*text), layout="nested")


PRESETS: dict[str, ClipConfig] = {name: _preset(*row) for name, row in _SIZES.items()}
