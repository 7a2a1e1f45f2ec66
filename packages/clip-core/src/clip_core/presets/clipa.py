"""CLIPA (Li et al. 2023): trained on short captions and small images, with mean pooling and no norm before the blocks.

Sizes are those of the plain models of the same letters. The text tower sees the whole text both ways and is read at
the last position of 32, which the tokenizer always fills; its vocabulary is BERT's with room above it.
"""

from __future__ import annotations

from clip_core.config import ClipConfig, HfTokenizerConfig
from clip_core.presets.parts import IMAGENET_MEAN, IMAGENET_STD, model, text_tower
from clip_core.presets.vit import image_tower

__all__ = ["PRESETS"]

# name: (image size, patch, width, layers, heads, mlp), (text width, text layers, text heads), features
_SIZES = {
    "ViT-L-14-CLIPA": ((224, 14, 1024, 24, 16, 4096), (768, 12, 12), 768),
    "ViT-L-14-CLIPA-336": ((336, 14, 1024, 24, 16, 4096), (768, 12, 12), 768),
    "ViT-H-14-CLIPA": ((224, 14, 1280, 32, 16, 5120), (1024, 24, 16), 1024),
    "ViT-H-14-CLIPA-336": ((336, 14, 1280, 32, 16, 5120), (1024, 24, 16), 1024),
    "ViT-bigG-14-CLIPA": ((224, 14, 1664, 48, 16, 8192), (1280, 32, 20), 1280),
    "ViT-bigG-14-CLIPA-336": ((336, 14, 1664, 48, 16, 8192), (1280, 32, 20), 1280),
}

_CONTEXT = 32


def _preset(image: tuple[int, int, int, int, int, int], text: tuple[int, int, int], embed_dim: int) -> ClipConfig:
    return model(
        embed_dim,
        image_tower(*image, pool="average", pre_norm=False, norm_after_pool=True),
        text_tower(*text, context_length=_CONTEXT, vocab_size=32_000, causal=False, pool="last"),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        interpolation="bilinear",
        resize_mode="squash",
        tokenizer=HfTokenizerConfig(
            context_length=_CONTEXT,
            source="bert-base-uncased",
            clean="whitespace",
            pad_id=0,
            drop_separator=True,
        ),
    )


PRESETS: dict[str, ClipConfig] = {name: _preset(*row) for name, row in _SIZES.items()}
