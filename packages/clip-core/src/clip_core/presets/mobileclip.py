"""MobileCLIP (Vasu et al. 2024) and MobileCLIP 2 (Faghri et al. 2025): FastViT and ViT towers from Apple.

Columns: timm's name, image size, pooling; width, layers, heads of the text tower and whether it is causal; features;
whether the pixels are normalised as OpenAI's. The first models take pixels from 0 to 1 as they are.
"""

from __future__ import annotations

from typing import Literal

from clip_core.config import ClipConfig, TimmConfig
from clip_core.presets.parts import OPENAI_MEAN, OPENAI_STD, model, text_tower

__all__ = ["PRESETS"]

_Pool = Literal["avg", "token"]
_B, _L = (512, 12, 8), (768, 12, 12)

# name: (timm's name, image size, pool), text (width, layers, heads), causal text, features, OpenAI's mean and deviation
_SIZES: dict[str, tuple[tuple[str, int, _Pool], tuple[int, int, int], bool, int, bool]] = {
    "MobileCLIP-S1": (("fastvit_mci1", 256, "avg"), _B, False, 512, False),
    "MobileCLIP-S2": (("fastvit_mci2", 256, "avg"), _B, False, 512, False),
    "MobileCLIP-B": (("vit_base_mci_224", 224, "token"), _B, True, 512, False),
    "MobileCLIP2-S0": (("fastvit_mci0", 256, "avg"), _B, False, 512, False),
    "MobileCLIP2-S2": (("fastvit_mci2", 256, "avg"), _B, False, 512, False),
    "MobileCLIP2-S3": (("fastvit_mci3", 256, "avg"), _L, False, 768, True),
    "MobileCLIP2-S4": (("fastvit_mci4", 256, "avg"), _L, False, 768, True),
    "MobileCLIP2-B": (("vit_base_mci_224", 224, "token"), _B, True, 512, False),
    "MobileCLIP2-L-14": (("vit_large_patch14_clip_224", 224, "token"), _L, False, 768, True),
}


def _preset(
    image: tuple[str, int, _Pool], text: tuple[int, int, int], causal: bool, embed_dim: int, normalized: bool
) -> ClipConfig:
    name, image_size, pool = image
    large = name.startswith("vit_large")
    tower = TimmConfig(name=name, image_size=image_size, pool=pool, projection="trunk", drop_path=0.1 if large else 0.0)
    return model(
        embed_dim,
        tower,
        text_tower(*text, causal=causal),
        layout="nested",
        mean=OPENAI_MEAN if normalized else (0.0, 0.0, 0.0),
        std=OPENAI_STD if normalized else (1.0, 1.0, 1.0),
        interpolation="bicubic" if large else "bilinear",
    )


PRESETS: dict[str, ClipConfig] = {name: _preset(*row) for name, row in _SIZES.items()}
