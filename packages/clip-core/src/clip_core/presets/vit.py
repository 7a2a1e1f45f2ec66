"""CLIP with a plain vision transformer and a causal text transformer: OpenAI's sizes and those that OpenCLIP added.

Columns of the table: image size, patch, width, layers, heads, MLP width of the image tower; width, layers, heads of
the text tower (MLP four times as wide); features. Sources: Radford et al. 2021 table 20; Cherti et al. 2022 for
H, g and bigG (their MLPs are 4.3637 and 4.9231 times the width, stated here as final values); Zhai et al. 2021 for e.
"""

from __future__ import annotations

from typing import Any

from clip_core.config import ClipConfig, VitConfig
from clip_core.presets.parts import model, text_tower

__all__ = ["PRESETS", "PUBLISHED_WITH_QUICK_GELU", "image_tower"]

# name: (image size, patch, width, layers, heads, mlp), (text width, text layers, text heads), features
_SIZES = {
    "ViT-S-32": ((224, 32, 384, 12, 6, 1536), (384, 12, 6), 384),
    "ViT-S-32-alt": ((224, 32, 384, 12, 6, 1536), (256, 10, 4), 256),
    "ViT-S-16": ((224, 16, 384, 12, 6, 1536), (384, 12, 6), 384),
    "ViT-S-16-alt": ((224, 16, 384, 12, 6, 1536), (256, 10, 4), 256),
    "ViT-M-32": ((224, 32, 512, 12, 8, 2048), (512, 12, 8), 512),
    "ViT-M-32-alt": ((224, 32, 512, 12, 8, 2048), (384, 12, 6), 384),
    "ViT-M-16": ((224, 16, 512, 12, 8, 2048), (512, 12, 8), 512),
    "ViT-B-32": ((224, 32, 768, 12, 12, 3072), (512, 12, 8), 512),
    "ViT-B-32-256": ((256, 32, 768, 12, 12, 3072), (512, 12, 8), 512),
    "ViT-B-32-plus-256": ((256, 32, 896, 12, 14, 3584), (640, 12, 10), 640),
    "ViT-B-16": ((224, 16, 768, 12, 12, 3072), (512, 12, 8), 512),
    "ViT-B-16-plus": ((224, 16, 896, 12, 14, 3584), (640, 12, 10), 640),
    "ViT-B-16-plus-240": ((240, 16, 896, 12, 14, 3584), (640, 12, 10), 640),
    "ViT-L-16": ((224, 16, 1024, 24, 16, 4096), (768, 12, 12), 768),
    "ViT-L-16-320": ((320, 16, 1024, 24, 16, 4096), (768, 12, 12), 768),
    "ViT-L-14": ((224, 14, 1024, 24, 16, 4096), (768, 12, 12), 768),
    "ViT-L-14-280": ((280, 14, 1024, 24, 16, 4096), (768, 12, 12), 768),
    "ViT-L-14-336": ((336, 14, 1024, 24, 16, 4096), (768, 12, 12), 768),
    "ViT-H-16": ((224, 16, 1280, 32, 16, 5120), (1024, 24, 16), 1024),
    "ViT-H-14": ((224, 14, 1280, 32, 16, 5120), (1024, 24, 16), 1024),
    "ViT-H-14-378": ((378, 14, 1280, 32, 16, 5120), (1024, 24, 16), 1024),
    "ViT-g-14": ((224, 14, 1408, 40, 16, 6144), (1024, 24, 16), 1024),
    "ViT-bigG-14": ((224, 14, 1664, 48, 16, 8192), (1280, 32, 20), 1280),
    "ViT-e-14": ((224, 14, 1792, 56, 16, 15360), (1280, 36, 20), 1280),
}

# Names under which weights with OpenAI's activation were published with an architecture name of their own.
PUBLISHED_WITH_QUICK_GELU = (
    "ViT-B-32",
    "ViT-B-16",
    "ViT-L-14",
    "ViT-L-14-336",
    "ViT-H-14",
    "ViT-H-14-378",
    "ViT-bigG-14",
)


def image_tower(
    image_size: int, patch_size: int, width: int, layers: int, heads: int, mlp_dim: int, **options: Any
) -> VitConfig:
    """A row's image tower; `options` replace any field of `VitConfig`."""
    fields: dict[str, Any] = {"activation": "gelu", **options}
    return VitConfig(
        image_size=image_size,
        patch_size=patch_size,
        width=width,
        layers=layers,
        heads=heads,
        mlp_dim=mlp_dim,
        **fields,
    )


PRESETS: dict[str, ClipConfig] = {
    name: model(
        embed_dim,
        image_tower(*image),
        text_tower(*text),
        # The one set of weights for 378 pixels (DFN) is published so.
        resize_mode="squash" if image[0] == 378 else "shortest",
    )
    for name, (image, text, embed_dim) in _SIZES.items()
}

# The one plain model of OpenCLIP with a gain on each residual branch of the image tower.
PRESETS["ViT-M-16-alt"] = model(384, image_tower(224, 16, 512, 12, 8, 2048, layer_scale=1e-4), text_tower(384, 12, 6))

# Our own: small enough to learn from scratch on a laptop's CPU in minutes (the demo), and for tests. Its context is
# short because its captions are; everything else is an ordinary CLIP.
PRESETS["tiny"] = model(128, image_tower(32, 8, 96, 3, 3, 384), text_tower(96, 2, 3, context_length=32))
