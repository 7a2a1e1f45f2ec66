"""SigLIP (Zhai et al. 2023) and SigLIP 2 (Tschannen et al. 2025): a sigmoid loss, so a bias beside the scale.

Both towers read everything at once: the image tower pools by attention, the text tower is not causal and reads its
last position. Texts are padded to the context, and the padding is seen. The MLPs of the shape-optimised towers
(SO400M) are 3.7362 times as wide as the tower, stated here as final values.
"""

from __future__ import annotations

import dataclasses

from clip_core.config import ClipConfig, HfTokenizerConfig, ImageConfig, TextConfig, TimmConfig
from clip_core.presets.parts import INCEPTION_MEAN, INCEPTION_STD, model, text_tower

__all__ = ["PRESETS", "siglip2_text", "siglip_model"]

_BIAS = -10.0  # about minus the log of the number of negatives, so that training begins near its prior

# Text towers by the width of the features: width, layers, heads, width of the MLP.
_TEXT = {
    768: (768, 12, 12, 3072),
    1024: (1024, 24, 16, 4096),
    1152: (1152, 27, 16, 4304),
    1536: (1152, 27, 16, 4304),
}
_ENGLISH, _MULTILINGUAL, _GEMMA = 32_000, 250_000, 256_000  # ids of the vocabularies

# name: timm's name, image size, features, repository of the tokenizer under timm/, ids of its vocabulary
_SIGLIP = {
    "ViT-B-16-SigLIP": ("vit_base_patch16_siglip_224", 224, 768, "ViT-B-16-SigLIP", _ENGLISH),
    "ViT-B-16-SigLIP-256": ("vit_base_patch16_siglip_256", 256, 768, "ViT-B-16-SigLIP", _ENGLISH),
    "ViT-B-16-SigLIP-384": ("vit_base_patch16_siglip_384", 384, 768, "ViT-B-16-SigLIP", _ENGLISH),
    "ViT-B-16-SigLIP-512": ("vit_base_patch16_siglip_512", 512, 768, "ViT-B-16-SigLIP", _ENGLISH),
    "ViT-B-16-SigLIP-i18n-256": ("vit_base_patch16_siglip_256", 256, 768, "ViT-B-16-SigLIP-i18n-256", _MULTILINGUAL),
    "ViT-L-16-SigLIP-256": ("vit_large_patch16_siglip_256", 256, 1024, "ViT-B-16-SigLIP", _ENGLISH),
    "ViT-L-16-SigLIP-384": ("vit_large_patch16_siglip_384", 384, 1024, "ViT-B-16-SigLIP", _ENGLISH),
    "ViT-SO400M-14-SigLIP": ("vit_so400m_patch14_siglip_224", 224, 1152, "ViT-B-16-SigLIP", _ENGLISH),
    "ViT-SO400M-14-SigLIP-378": ("vit_so400m_patch14_siglip_378", 378, 1152, "ViT-B-16-SigLIP", _ENGLISH),
    "ViT-SO400M-14-SigLIP-384": ("vit_so400m_patch14_siglip_384", 384, 1152, "ViT-B-16-SigLIP", _ENGLISH),
    "ViT-SO400M-16-SigLIP-i18n-256": (
        "vit_so400m_patch16_siglip_256",
        256,
        1152,
        "ViT-B-16-SigLIP-i18n-256",
        _MULTILINGUAL,
    ),
}

# name: timm's name, image size, features; each has a repository of its own with the same tokenizer
_SIGLIP2 = {
    "ViT-B-32-SigLIP2-256": ("vit_base_patch32_siglip_256", 256, 768),
    "ViT-B-16-SigLIP2": ("vit_base_patch16_siglip_224", 224, 768),
    "ViT-B-16-SigLIP2-256": ("vit_base_patch16_siglip_256", 256, 768),
    "ViT-B-16-SigLIP2-384": ("vit_base_patch16_siglip_384", 384, 768),
    "ViT-B-16-SigLIP2-512": ("vit_base_patch16_siglip_512", 512, 768),
    "ViT-L-16-SigLIP2-256": ("vit_large_patch16_siglip_256", 256, 1024),
    "ViT-L-16-SigLIP2-384": ("vit_large_patch16_siglip_384", 384, 1024),
    "ViT-L-16-SigLIP2-512": ("vit_large_patch16_siglip_512", 512, 1024),
    "ViT-SO400M-14-SigLIP2": ("vit_so400m_patch14_siglip_224", 224, 1152),
    "ViT-SO400M-14-SigLIP2-378": ("vit_so400m_patch14_siglip_378", 378, 1152),
    "ViT-SO400M-16-SigLIP2-256": ("vit_so400m_patch16_siglip_256", 256, 1152),
    "ViT-SO400M-16-SigLIP2-384": ("vit_so400m_patch16_siglip_384", 384, 1152),
    "ViT-SO400M-16-SigLIP2-512": ("vit_so400m_patch16_siglip_512", 512, 1152),
    "ViT-gopt-16-SigLIP2-256": ("vit_giantopt_patch16_siglip_256", 256, 1536),
    "ViT-gopt-16-SigLIP2-384": ("vit_giantopt_patch16_siglip_384", 384, 1536),
}


def siglip_model(embed_dim: int, image: ImageConfig, text: TextConfig, source: str, pad_id: int) -> ClipConfig:
    """The envelope of both families: pixels from -1 to 1 of a squashed image, text without case and punctuation.

    `source` is the repository of the tokenizer under timm/, `pad_id` the id that it pads with.
    """
    tokenizer = HfTokenizerConfig(
        context_length=text.context_length, source=f"timm/{source}", clean="canonicalize", pad_id=pad_id
    )
    return model(
        embed_dim,
        image,
        text,
        layout="nested",
        logit_bias=_BIAS,
        mean=INCEPTION_MEAN,
        std=INCEPTION_STD,
        resize_mode="squash",
        tokenizer=tokenizer,
    )


def siglip2_text(embed_dim: int) -> TextConfig:
    """SigLIP 2's text tower beside features of this width."""
    return _text(embed_dim, _GEMMA, 64, activation="gelu_tanh")


def _text(embed_dim: int, vocab_size: int, context_length: int, **options: str) -> TextConfig:
    width, layers, heads, mlp_dim = _TEXT[embed_dim]
    return text_tower(
        width,
        layers,
        heads,
        context_length,
        vocab_size=vocab_size,
        mlp_dim=mlp_dim,
        causal=False,
        pool="last",
        projection="linear_bias",
        norm_eps=1e-6,
        **options,
    )


def _image(name: str, image_size: int) -> TimmConfig:
    return TimmConfig(name=name, image_size=image_size, pool="map", projection="none")


def _siglip(name: str, image_size: int, embed_dim: int, source: str, vocab_size: int) -> ClipConfig:
    # The first shape-optimised model was trained on short captions.
    context_length = 16 if name == "vit_so400m_patch14_siglip_224" else 64
    text = _text(embed_dim, vocab_size, context_length)
    if embed_dim == 1152 and vocab_size == _MULTILINGUAL:
        # This one alone has no projection: its text tower is as wide as its features.
        text = dataclasses.replace(text, projection="none")
    return siglip_model(embed_dim, _image(name, image_size), text, source, pad_id=1)


def _siglip2(model_name: str, name: str, image_size: int, embed_dim: int) -> ClipConfig:
    return siglip_model(embed_dim, _image(name, image_size), siglip2_text(embed_dim), model_name, pad_id=0)


PRESETS: dict[str, ClipConfig] = {
    **{name: _siglip(*row) for name, row in _SIGLIP.items()},
    **{name: _siglip2(name, *row) for name, row in _SIGLIP2.items()},
}
