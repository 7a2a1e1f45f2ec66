"""MetaCLIP 2 (Chuang et al. 2025): the plain models' sizes over many languages, so with other vocabularies.

Features are read at the tokenizer's end of text. L has mT5's vocabulary, H and bigG that of XLM-V.
"""

from __future__ import annotations

from typing import Literal

from clip_core.config import ClipConfig, HfTokenizerConfig
from clip_core.presets.parts import model, text_tower
from clip_core.presets.vit import image_tower

__all__ = ["PRESETS", "PUBLISHED_WITH_QUICK_GELU"]

# Source, number of ids, end of text, padding, cleaning.
_Vocabulary = tuple[str, int, int, int, Literal["whitespace", "canonicalize"]]
_MT5: _Vocabulary = ("google/mt5-base", 250_100, 1, 0, "canonicalize")
_XLM_V: _Vocabulary = ("facebook/xlm-v-base", 901_629, 2, 1, "whitespace")

# name: (image size, patch, width, layers, heads, mlp), (text width, text layers, text heads), features, vocabulary
_SIZES = {
    "ViT-L-14-worldwide": ((224, 14, 1024, 24, 16, 4096), (768, 12, 12), 768, _MT5),
    "ViT-H-14-worldwide": ((224, 14, 1280, 32, 16, 5120), (1024, 24, 16), 1024, _XLM_V),
    "ViT-H-14-worldwide-378": ((378, 14, 1280, 32, 16, 5120), (1024, 24, 16), 1024, _XLM_V),
    "ViT-bigG-14-worldwide": ((224, 14, 1664, 48, 16, 8192), (1280, 32, 20), 1280, _XLM_V),
    "ViT-bigG-14-worldwide-378": ((378, 14, 1664, 48, 16, 8192), (1280, 32, 20), 1280, _XLM_V),
}

PUBLISHED_WITH_QUICK_GELU = ("ViT-L-14-worldwide", "ViT-H-14-worldwide")

_CONTEXT = 77


def _preset(
    image: tuple[int, int, int, int, int, int],
    text: tuple[int, int, int],
    embed_dim: int,
    vocabulary: _Vocabulary,
) -> ClipConfig:
    source, vocab_size, eos_id, pad_id, clean = vocabulary
    return model(
        embed_dim,
        image_tower(*image),
        text_tower(*text, context_length=_CONTEXT, vocab_size=vocab_size, pool="eos", eos_id=eos_id, pad_id=pad_id),
        # As the weights for 378 pixels are published.
        resize_mode="squash" if image[0] == 378 else "shortest",
        tokenizer=HfTokenizerConfig(context_length=_CONTEXT, source=source, clean=clean, pad_id=pad_id),
    )


PRESETS: dict[str, ClipConfig] = {name: _preset(*row) for name, row in _SIZES.items()}
