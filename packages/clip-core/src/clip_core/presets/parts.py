"""What the rows of every family are completed with: means, text towers of OpenAI's kind, the envelope."""

from __future__ import annotations

import math
from typing import Any, Literal

from clip_core.config import (
    ClipConfig,
    ClipTokenizerConfig,
    DecoderConfig,
    ImageConfig,
    PreprocessConfig,
    TextConfig,
    TextTowerConfig,
    TokenizerConfig,
)

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "INCEPTION_MEAN",
    "INCEPTION_STD",
    "OPENAI_MEAN",
    "OPENAI_STD",
    "VOCAB_SIZE",
    "Rgb",
    "model",
    "text_tower",
]

Rgb = tuple[float, float, float]

# Per RGB channel on a 0 to 1 scale: of OpenAI's training images, the round numbers of Inception, of ImageNet.
OPENAI_MEAN: Rgb = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD: Rgb = (0.26862954, 0.26130258, 0.27577711)
INCEPTION_MEAN: Rgb = (0.5, 0.5, 0.5)
INCEPTION_STD: Rgb = (0.5, 0.5, 0.5)
IMAGENET_MEAN: Rgb = (0.485, 0.456, 0.406)
IMAGENET_STD: Rgb = (0.229, 0.224, 0.225)

VOCAB_SIZE = 49_408
"""Ids of OpenAI's byte-pair vocabulary."""


def text_tower(width: int, layers: int, heads: int, context_length: int = 77, **options: Any) -> TextConfig:
    """OpenAI's text tower with an MLP four times as wide; `options` replace any field of `TextConfig`."""
    fields: dict[str, Any] = {"vocab_size": VOCAB_SIZE, "mlp_dim": 4 * width, "activation": "gelu", **options}
    return TextConfig(width=width, layers=layers, heads=heads, context_length=context_length, **fields)


def model(
    embed_dim: int,
    image: ImageConfig,
    text: TextTowerConfig,
    *,
    decoder: DecoderConfig | None = None,
    layout: Literal["flat", "nested"] = "flat",
    logit_scale: float = math.log(1 / 0.07),
    logit_bias: float | None = None,
    mean: Rgb = OPENAI_MEAN,
    std: Rgb = OPENAI_STD,
    interpolation: Literal["bicubic", "bilinear"] = "bicubic",
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest",
    tokenizer: TokenizerConfig | None = None,
) -> ClipConfig:
    """The envelope around two towers, with OpenAI's preprocessing and tokenizer unless others are stated."""
    return ClipConfig(
        embed_dim=embed_dim,
        image=image,
        text=text,
        decoder=decoder,
        layout=layout,
        logit_scale=logit_scale,
        logit_bias=logit_bias,
        preprocess=PreprocessConfig(
            size=image.image_size, mean=mean, std=std, interpolation=interpolation, resize_mode=resize_mode
        ),
        tokenizer=ClipTokenizerConfig(context_length=text.context_length) if tokenizer is None else tokenizer,
    )
