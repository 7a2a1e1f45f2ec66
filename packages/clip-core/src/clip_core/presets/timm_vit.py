"""Three further towers of timm that OpenCLIP has names for: a Swin (Liu et al. 2021) and two medium ViTs.

Columns: image size; width, layers, heads of the text tower; features. The name is timm's.
"""

from __future__ import annotations

from clip_core.config import ClipConfig, TimmConfig
from clip_core.presets.parts import model, text_tower

__all__ = ["PRESETS"]

# timm's name: image size, (text width, text layers, text heads), features
_SIZES = {
    "swin_base_patch4_window7_224": (224, (640, 12, 10), 640),
    "vit_medium_patch16_gap_256": (256, (512, 12, 8), 512),
    "vit_relpos_medium_patch16_cls_224": (224, (512, 12, 8), 512),
}


def _preset(name: str, image_size: int, text: tuple[int, int, int], embed_dim: int) -> ClipConfig:
    # timm's own pooling stays.
    tower = TimmConfig(name=name, image_size=image_size, pool="", projection="linear")
    return model(embed_dim, tower, text_tower(*text))


PRESETS: dict[str, ClipConfig] = {name: _preset(name, *row) for name, row in _SIZES.items()}
