"""CLIP with OpenCLIP's 2026 text tower, beside a plain vision transformer and beside NaFlex towers.

The vocabulary is r50k_base (GPT-2's 50,257 ids) with an end, a padding and a start behind it. Gated MLPs have two
thirds of the usual four widths, rounded down. The plain model reads captions causally up to their end; those with
NaFlex read both ways, normalise queries and keys, and pool by attention.
"""

from __future__ import annotations

import dataclasses

from clip_core.config import ClipConfig, ModernTextConfig, TiktokenTokenizerConfig, VitConfig
from clip_core.presets.naflex import naflex_image
from clip_core.presets.parts import model

__all__ = ["PRESETS"]

_TOKENIZER = TiktokenTokenizerConfig(
    context_length=256, name="r50k_base", clean="whitespace", bos_id=50_259, eos_id=50_257, pad_id=50_258
)


def _text(width: int, heads: int, mlp_dim: int) -> ModernTextConfig:
    return ModernTextConfig(
        context_length=_TOKENIZER.context_length,
        vocab_size=50_260,
        width=width,
        layers=12,
        heads=heads,
        mlp_dim=mlp_dim,
        causal=False,
        pool="map",
        eos_id=_TOKENIZER.eos_id,
        pad_id=_TOKENIZER.pad_id,
        gated_attention=True,
        query_key_norm=True,
        norm_eps=1e-5,
    )


# name: (features, text width, heads, MLP width); the image tower goes by the same name.
_NAFLEX = {
    "moderntext-naflex_ViT-B-32": (512, 512, 8, 1365),
    "moderntext-naflex_ViT-B-16": (512, 512, 8, 1365),
    "moderntext-naflex_ViT-B-deep-16": (640, 640, 10, 1706),
    "moderntext-naflex_ViT-SO150M2-16": (768, 768, 12, 2048),
}

PRESETS: dict[str, ClipConfig] = {
    "moderntext-ViT-B-32-256": model(
        512,
        VitConfig(image_size=256, patch_size=32, width=768, layers=12, heads=12, mlp_dim=3072, activation="gelu"),
        dataclasses.replace(_text(512, 8, 1365), causal=True, pool="eos", query_key_norm=False, norm_eps=1e-6),
        layout="nested",
        # Alone of these it was made without any cleaning of captions.
        tokenizer=dataclasses.replace(_TOKENIZER, clean="none"),
    ),
    **{
        name: model(embed_dim, naflex_image(name), _text(*sizes), layout="nested", tokenizer=_TOKENIZER)
        for name, (embed_dim, *sizes) in _NAFLEX.items()
    },
}
