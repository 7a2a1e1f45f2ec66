"""ConvNeXt (Liu et al. 2022) as image towers, after LAION: `_w` has a wider text tower, `_d` an MLP as head.

Columns: timm's name, image size, projection; width, layers, heads of the text tower; features.
"""

from __future__ import annotations

from typing import Literal

from clip_core.config import ClipConfig, TimmConfig
from clip_core.presets.parts import model, text_tower

__all__ = ["PRESETS"]

_Projection = Literal["linear", "mlp"]

# name: (timm's name, image size, projection), (text width, text layers, text heads), features
_SIZES: dict[str, tuple[tuple[str, int, _Projection], tuple[int, int, int], int]] = {
    "convnext_tiny": (("convnext_tiny", 224, "linear"), (512, 12, 8), 1024),
    "convnext_small": (("convnext_small", 224, "linear"), (512, 12, 8), 512),
    "convnext_base": (("convnext_base", 224, "linear"), (512, 12, 8), 512),
    "convnext_base_w": (("convnext_base", 256, "linear"), (640, 12, 10), 640),
    "convnext_base_w_320": (("convnext_base", 320, "linear"), (640, 12, 10), 640),
    "convnext_large": (("convnext_large", 224, "linear"), (768, 12, 12), 768),
    "convnext_large_d": (("convnext_large", 256, "mlp"), (768, 16, 12), 768),
    "convnext_large_d_320": (("convnext_large", 320, "mlp"), (768, 16, 12), 768),
    "convnext_xlarge": (("convnext_xlarge", 256, "linear"), (1024, 20, 16), 1024),
    "convnext_xxlarge": (("convnext_xxlarge", 256, "linear"), (1024, 24, 16), 1024),
    "convnext_xxlarge_320": (("convnext_xxlarge", 320, "linear"), (1024, 24, 16), 1024),
}


def _preset(image: tuple[str, int, _Projection], text: tuple[int, int, int], embed_dim: int) -> ClipConfig:
    name, image_size, projection = image
    # timm's own pooling (average, then a norm) stays.
    tower = TimmConfig(name=name, image_size=image_size, pool="", projection=projection, drop_path=0.1)
    return model(embed_dim, tower, text_tower(*text))


PRESETS: dict[str, ClipConfig] = {name: _preset(*row) for name, row in _SIZES.items()}
