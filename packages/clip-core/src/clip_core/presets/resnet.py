"""OpenAI's ResNets (Radford et al. 2021, table 19): RN50 and RN101, and RN50 with 4, 16 and 64 times the compute.

Columns: image size, blocks of the four stages, channels of the first; width, layers, heads of the text tower; features.
The pooling has one head for each 64 of its 32 times as many channels.
"""

from __future__ import annotations

from clip_core.config import ClipConfig, ResNetConfig
from clip_core.presets.parts import model, text_tower

__all__ = ["PRESETS", "PUBLISHED_WITH_QUICK_GELU"]

# name: (image size, blocks, channels), (text width, text layers, text heads), features
_SIZES = {
    "RN50": ((224, (3, 4, 6, 3), 64), (512, 12, 8), 1024),
    "RN101": ((224, (3, 4, 23, 3), 64), (512, 12, 8), 512),
    "RN50x4": ((288, (4, 6, 10, 6), 80), (640, 12, 10), 640),
    "RN50x16": ((384, (6, 8, 18, 8), 96), (768, 12, 12), 768),
    "RN50x64": ((448, (3, 15, 36, 10), 128), (1024, 12, 16), 1024),
}

# Every published set of weights was trained with OpenAI's activation, which here is in the text tower only.
PUBLISHED_WITH_QUICK_GELU = tuple(_SIZES)


def _preset(
    image: tuple[int, tuple[int, int, int, int], int], text: tuple[int, int, int], embed_dim: int
) -> ClipConfig:
    image_size, layers, width = image
    tower = ResNetConfig(image_size=image_size, layers=layers, width=width, heads=width * 32 // 64)
    return model(embed_dim, tower, text_tower(*text))


PRESETS: dict[str, ClipConfig] = {name: _preset(*row) for name, row in _SIZES.items()}
