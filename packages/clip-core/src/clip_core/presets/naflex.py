"""NaFlex: image towers that take any number of patches of an image of any shape (SigLIP 2's, and OpenCLIP's own).

`naflex_image` is the image half of a name; the models with a modern text tower are put together in `modern`.
"""

from __future__ import annotations

from typing import Literal

from clip_core.config import ClipConfig, NaFlexConfig, Options
from clip_core.presets.parts import model, text_tower
from clip_core.presets.siglip import siglip2_text, siglip_model

__all__ = ["PRESETS", "naflex_image"]

# Gated MLPs of two thirds the width have as many weights as plain ones; the pooling's own MLP stays plain.
_GATED = (("attn_pool_mlp_ratio", 4.0), ("mlp_ratio", 2.6666667), ("swiglu_mlp", True))


def naflex_image(name: str) -> NaFlexConfig:
    """The image tower of the architecture `name`, one of the keys below: as many patches as its square image has."""
    timm_name, side, patch_size, pool, options = _SIZES[name]
    return NaFlexConfig(
        name=timm_name,
        image_size=side,
        patch_size=patch_size,
        max_patches=(side // patch_size) ** 2,
        pool=pool,
        projection="none" if "SigLIP2" in name else "linear",
        options=options,
    )


def _patches_of_32(side: int) -> Options:
    return (("patch_size", 32), ("pos_embed_grid_size", (side, side)))


_DEEP = (("depth", 16), ("embed_dim", 768), ("num_heads", 12))

# name: timm's name, side of the square image in pixels, patch, pooling, options
_SIZES: dict[str, tuple[str, int, int, Literal["map", "avg"], Options]] = {
    "ViT-B-16-SigLIP2-naflex": ("naflexvit_base_patch16_siglip", 384, 16, "map", ()),
    "ViT-SO400M-16-SigLIP2-naflex": ("naflexvit_so400m_patch16_siglip", 384, 16, "map", ()),
    "naflex_ViT-B-32": ("naflexvit_base_patch16_gap", 224, 32, "avg", _patches_of_32(7)),
    "naflex_ViT-B-16": ("naflexvit_base_patch16_gap", 224, 16, "avg", ()),
    "moderntext-naflex_ViT-B-32": ("naflexvit_base_patch16_map", 256, 32, "map", (*_GATED, *_patches_of_32(8))),
    "moderntext-naflex_ViT-B-16": ("naflexvit_base_patch16_map", 256, 16, "map", _GATED),
    "moderntext-naflex_ViT-B-deep-16": ("naflexvit_base_patch16_map", 256, 16, "map", (*_GATED, *_DEEP)),
    "moderntext-naflex_ViT-SO150M2-16": ("naflexvit_so150m2_patch16_reg1_map", 256, 16, "map", ()),
}

PRESETS: dict[str, ClipConfig] = {
    "ViT-B-16-SigLIP2-naflex": siglip_model(
        768, naflex_image("ViT-B-16-SigLIP2-naflex"), siglip2_text(768), "ViT-B-16-SigLIP2-256", pad_id=0
    ),
    "ViT-SO400M-16-SigLIP2-naflex": siglip_model(
        1152, naflex_image("ViT-SO400M-16-SigLIP2-naflex"), siglip2_text(1152), "ViT-SO400M-16-SigLIP2-256", pad_id=0
    ),
    "naflex_ViT-B-32": model(512, naflex_image("naflex_ViT-B-32"), text_tower(512, 12, 8)),
    "naflex_ViT-B-16": model(512, naflex_image("naflex_ViT-B-16"), text_tower(512, 12, 8), layout="nested"),
}
