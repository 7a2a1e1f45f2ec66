"""CoCa (Yu et al. 2022): contrastive captioners. Weights of the ViT-B-32 and ViT-L-14 are LAION's, on LAION-2B.

Columns of the table: image size, patch, width, layers, heads of the image tower, and heads of its attention pool of 256
queries (0: no pool, the decoder reads the patches); width and heads of the text tower and the decoder, which have 12
layers each and the same width; vocabulary; features. MLPs are four times as wide. A text has 76 ids, as the class token
takes the 77th position.
"""

from __future__ import annotations

import dataclasses

from clip_core.config import AttentionPoolConfig, ClipConfig, DecoderConfig, VitConfig
from clip_core.presets.hf import ROBERTA_BASE, SOURCES, hf_tokenizer
from clip_core.presets.parts import VOCAB_SIZE, model, text_tower

__all__ = ["PRESETS"]

CONTEXT_LENGTH = 76

# name: (image size, patch, width, layers, heads, pool heads), (text width, text heads), vocabulary, features
_SIZES = {
    "coca_base": ((288, 18, 768, 12, 12, 0), (768, 12), 64_000, 512),
    "coca_ViT-B-32": ((224, 32, 768, 12, 12, 8), (512, 8), VOCAB_SIZE, 512),
    "coca_ViT-L-14": ((224, 14, 1024, 24, 16, 8), (768, 12), VOCAB_SIZE, 768),
}

# OpenAI's vocabulary; coca_base has room for more ids, which its tokenizer does not give.
_OPENAI_IDS = {"start_id": 49_406, "end_id": 49_407, "pad_id": 0}


def _image_tower(image_size: int, patch_size: int, width: int, layers: int, heads: int, pool_heads: int) -> VitConfig:
    return VitConfig(
        image_size=image_size,
        patch_size=patch_size,
        width=width,
        layers=layers,
        heads=heads,
        mlp_dim=4 * width,
        activation="gelu",
        attention_pool=AttentionPoolConfig(queries=256, heads=pool_heads) if pool_heads else None,
    )


def _decoder(width: int, heads: int, vocab_size: int, *, start_id: int, end_id: int, pad_id: int) -> DecoderConfig:
    return DecoderConfig(
        context_length=CONTEXT_LENGTH,
        vocab_size=vocab_size,
        width=width,
        layers=12,
        heads=heads,
        mlp_dim=4 * width,
        activation="gelu",
        start_id=start_id,
        end_id=end_id,
        pad_id=pad_id,
    )


def _preset(
    image: tuple[int, int, int, int, int, int], text: tuple[int, int], vocab_size: int, embed_dim: int
) -> ClipConfig:
    tower = text_tower(text[0], 12, text[1], CONTEXT_LENGTH, vocab_size=vocab_size, class_token=True)
    decoder = _decoder(*text, vocab_size, **_OPENAI_IDS)
    return model(embed_dim, _image_tower(*image), tower, decoder=decoder, layout="nested")


def _with_roberta() -> ClipConfig:
    # OpenCLIP gave this decoder the size of OpenAI's vocabulary, so RoBERTa's last 857 ids are out of its reach.
    text = dataclasses.replace(ROBERTA_BASE, projection="linear")
    return model(
        512,
        _image_tower(224, 32, 768, 12, 12, 0),
        text,
        decoder=_decoder(768, 8, VOCAB_SIZE, start_id=0, end_id=2, pad_id=1),
        layout="nested",
        tokenizer=hf_tokenizer(text, SOURCES[ROBERTA_BASE]),
    )


PRESETS: dict[str, ClipConfig] = {
    **{name: _preset(*row) for name, row in _SIZES.items()},
    "coca_roberta-ViT-B-32": _with_roberta(),
}
