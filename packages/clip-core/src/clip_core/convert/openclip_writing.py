"""`ClipConfig` -> OpenCLIP's `open_clip_config.json`, which OpenCLIP 3.3.0 reads; the way back is `openclip_config`."""

from __future__ import annotations

import math
from typing import Any

from clip_core.config import (
    Activation,
    ClipConfig,
    ClipTokenizerConfig,
    DecoderConfig,
    HfTextConfig,
    HfTokenizerConfig,
    ImageConfig,
    NaFlexConfig,
    ResNetConfig,
    TextConfig,
    TextTowerConfig,
    TimmConfig,
    TokenizerConfig,
    VitConfig,
)
from clip_core.config.values import Size
from clip_core.convert.checkpoint import differences
from clip_core.convert.openclip_config import from_openclip
from clip_core.convert.openclip_words import HF_POOLS, IMAGE_POOLS, POSITIONS, TEXT_POOLS
from clip_core.errors import ConfigError
from clip_core.presets import hf

__all__ = ["ratio", "to_openclip_config"]


def to_openclip_config(config: ClipConfig) -> dict[str, Any]:
    """`model_cfg` and `preprocess_cfg` for `config`; `from_openclip` gives an equivalent configuration back.

    Raises:
        ConfigError: OpenCLIP 3.3.0 cannot build this model; says which part of it.
    """
    parts = (config.image, config.text, config.decoder)
    activations = {part.activation for part in parts if isinstance(part, VitConfig | TextConfig | DecoderConfig)}
    if "quick_gelu" in activations and len(activations) > 1:
        raise ConfigError(f"OpenCLIP's quick_gelu is for both towers; this model has {', '.join(sorted(activations))}.")
    model: dict[str, Any] = {
        "embed_dim": config.embed_dim,
        "vision_cfg": _image(config.image),
        "text_cfg": {**_text(config.text), **_tokenizer(config.tokenizer)},
        "quick_gelu": "quick_gelu" in activations,
        "init_logit_scale": config.logit_scale,
        "init_logit_bias": config.logit_bias,
    }
    if config.layout == "nested" and config.decoder is None:
        model["custom_text"] = True
    if config.decoder is not None:
        decoder = config.decoder
        if isinstance(config.text, HfTextConfig):
            # The encoder has its own; OpenCLIP gives this one to the decoder.
            model["text_cfg"]["vocab_size"] = decoder.vocab_size
        model["multimodal_cfg"] = {
            "context_length": decoder.context_length,
            "vocab_size": decoder.vocab_size,
            "width": decoder.width,
            "layers": decoder.layers,
            "heads": decoder.heads,
        }
        model["custom_text"] = True
    preprocess = config.preprocess
    found = {
        "model_cfg": model,
        "preprocess_cfg": {
            "size": _plain(preprocess.size),
            "mode": "RGB",
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "interpolation": preprocess.interpolation,
            "resize_mode": preprocess.resize_mode,
            "fill_color": preprocess.fill_color,
        },
    }
    pad_id = config.tokenizer.pad_id if isinstance(config.tokenizer, HfTokenizerConfig) else None
    # A field that none of these words state would be lost without a sound.
    lost = differences(config, from_openclip(model, found["preprocess_cfg"], pad_id=pad_id))
    if lost:
        field, (held, told) = next(iter(lost.items()))
        raise ConfigError(f"{field} is {held!r}, and OpenCLIP would make it {told!r}: it has no word for this.")
    return found


def _image(image: ImageConfig) -> dict[str, Any]:
    size = _plain(image.image_size)
    if isinstance(image, NaFlexConfig) or (isinstance(image, TimmConfig) and image.options):
        raise ConfigError(f"OpenCLIP 3.3.0 gives timm no options; {image.name} needs some here.")
    if isinstance(image, TimmConfig):
        return {
            "image_size": size,
            "timm_model_name": image.name,
            "timm_model_pretrained": False,
            "timm_pool": image.pool,
            "timm_proj": "" if image.projection == "trunk" else image.projection,
            "timm_drop": image.head_dropout,
            "timm_drop_path": image.drop_path,
            "patch_dropout": image.patch_dropout or 0.0,
        }
    if isinstance(image, ResNetConfig):
        head_width = image.width * 32 // image.heads
        return {"image_size": size, "layers": list(image.layers), "width": image.width, "head_width": head_width}
    found: dict[str, Any] = {
        "image_size": size,
        "patch_size": image.patch_size,
        "width": image.width,
        "layers": image.layers,
        "head_width": image.width // image.heads,
        "mlp_ratio": ratio(image.width, image.mlp_dim),
        "ls_init_value": image.layer_scale,
        "patch_dropout": image.patch_dropout,
        "no_ln_pre": not image.pre_norm,
        "final_ln_after_pool": image.norm_after_pool,
        "pos_embed_type": _word(POSITIONS, image.positions),
        "pool_type": _word(IMAGE_POOLS, image.pool),
        **_kwargs(image.activation, image.norm_eps),
    }
    if image.attention_pool is not None:
        mode = image.attention_pool.mode
        found["attentional_pool"] = True if mode == "plain" else mode
        found["attn_pooler_queries"] = image.attention_pool.queries
        found["attn_pooler_heads"] = image.attention_pool.heads
    return found


def _text(text: TextTowerConfig) -> dict[str, Any]:
    if isinstance(text, TextConfig):
        found = {
            "context_length": text.context_length,
            "vocab_size": text.vocab_size,
            "width": text.width,
            "layers": text.layers,
            "heads": text.heads,
            "mlp_ratio": ratio(text.width, text.mlp_dim),
            "ls_init_value": text.layer_scale,
            "embed_cls": text.class_token,
            "pad_id": text.pad_id,
            "no_causal_mask": not text.causal,
            "pool_type": _word(TEXT_POOLS, text.pool),
            "proj_type": "none" if text.projection == "none" else "linear",
            "proj_bias": text.projection == "linear_bias",
            **_kwargs(text.activation, text.norm_eps),
        }
        return found if text.eos_id is None else {**found, "eos_id": text.eos_id}
    if isinstance(text, HfTextConfig):
        for encoder, source in hf.SOURCES.items():
            if (encoder.model_type, encoder.settings, encoder.width) == (text.model_type, text.settings, text.width):
                return {
                    "hf_model_name": source,
                    "hf_model_pretrained": False,
                    "hf_proj_type": None if text.projection == "none" else text.projection,
                    "hf_pooler_type": _word(HF_POOLS, text.pool),
                    "context_length": text.context_length,
                    "vocab_size": text.vocab_size,
                }
        raise ConfigError(
            "OpenCLIP names a Hugging Face text tower by its repository; this one is of none of "
            f"{', '.join(hf.SOURCES.values())}."
        )
    raise ConfigError(f"OpenCLIP 3.3.0 has no text tower of kind {text.kind!r}.")


def _tokenizer(tokenizer: TokenizerConfig) -> dict[str, Any]:
    if isinstance(tokenizer, ClipTokenizerConfig):
        return {}
    if not isinstance(tokenizer, HfTokenizerConfig) or tokenizer.clean == "none":
        raise ConfigError("OpenCLIP 3.3.0 has CLIP's tokenizer and Hugging Face's, with a cleaning; not this one.")
    kwargs: dict[str, Any] = {"clean": tokenizer.clean}
    if tokenizer.drop_separator:
        kwargs["strip_sep_token"] = True
    return {"hf_tokenizer_name": tokenizer.source, "tokenizer_kwargs": kwargs}


def _kwargs(activation: Activation, norm_eps: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if activation == "gelu_tanh":
        found["act_kwargs"] = {"approximate": "tanh"}
    if norm_eps != 1e-5:
        found["norm_kwargs"] = {"eps": norm_eps}
    return found


def ratio(width: int, hidden: int) -> float:
    """What `width` is multiplied by and cut down to an integer to give `hidden`."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def _word(table: dict[str, str], value: str) -> str:
    return next(word for word, ours in table.items() if ours == value)


def _plain(size: Size) -> int | list[int]:
    return list(size) if isinstance(size, tuple) else size
