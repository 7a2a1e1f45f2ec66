"""NaFlex: image towers that take any number of patches of an image of any shape (SigLIP 2's, and OpenCLIP's own).

`naflex_image` is the image half of a name; the models with a modern text tower are put together in `modern`.
"""

from __future__ import annotations

from clip_core.config import ClipConfig, NaFlexConfig
from clip_core.presets.parts import model, text_tower
from clip_core.presets.siglip import siglip2_text, siglip_model

__all__ = ["PRESETS", "naflex_image"]

# Gated MLPs of two thirds the width have as many weights as plain ones; the pooling's own MLP stays plain.
_GATED = (("attn_pool_mlp_ratio", 4.0), ("mlp_ratio", 2.6666667), ("swiglu_mlp", True))


def naflex_image(name: str) -> NaFlexConfig:
    """The image tower of the architecture `name`, one of the keys below."""
    return _IMAGES[name]


def _patches_of_32(side: int) -> tuple[tuple[str, int | tuple[int, ...]], ...]:
    return (("patch_size", 32), ("pos_embed_grid_size", (side, side)))


_IMAGES = {
    "ViT-B-16-SigLIP2-naflex": NaFlexConfig(
        name="naflexvit_base_patch16_siglip",
        image_size=384,
        patch_size=16,
        max_patches=576,
        pool="map",
        projection="none",
    ),
    "ViT-SO400M-16-SigLIP2-naflex": NaFlexConfig(
        name="naflexvit_so400m_patch16_siglip",
        image_size=384,
        patch_size=16,
        max_patches=576,
        pool="map",
        projection="none",
    ),
    "naflex_ViT-B-32": NaFlexConfig(
        name="naflexvit_base_patch16_gap",
        image_size=224,
        patch_size=32,
        max_patches=49,
        pool="avg",
        projection="linear",
        options=_patches_of_32(7),
    ),
    "naflex_ViT-B-16": NaFlexConfig(
        name="naflexvit_base_patch16_gap",
        image_size=224,
        patch_size=16,
        max_patches=196,
        pool="avg",
        projection="linear",
    ),
    "moderntext-naflex_ViT-B-32": NaFlexConfig(
        name="naflexvit_base_patch16_map",
        image_size=256,
        patch_size=32,
        max_patches=64,
        pool="map",
        projection="linear",
        options=(*_GATED, *_patches_of_32(8)),
    ),
    "moderntext-naflex_ViT-B-16": NaFlexConfig(
        name="naflexvit_base_patch16_map",
        image_size=256,
        patch_size=16,
        max_patches=256,
        pool="map",
        projection="linear",
        options=_GATED,
    ),
    "moderntext-naflex_ViT-B-deep-16": NaFlexConfig(
        name="naflexvit_base_patch16_map",
        image_size=256,
        patch_size=16,
        max_patches=256,
        pool="map",
        projection="linear",
        options=(*_GATED, ("depth", 16), ("embed_dim", 768), ("num_heads", 12)),
    ),
    "moderntext-naflex_ViT-SO150M2-16": NaFlexConfig(
        name="naflexvit_so150m2_patch16_reg1_map",
        image_size=256,
        patch_size=16,
        max_patches=256,
        pool="map",
        projection="linear",
    ),
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
