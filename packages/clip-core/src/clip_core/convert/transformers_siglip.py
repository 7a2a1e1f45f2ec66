"""transformers' `SiglipModel` <-> SigLIP with timm's image tower. SigLIP 2 at a fixed resolution is a SiglipModel too.

timm packs query, key and value; its attention pool keeps the query apart from key and value, which transformers packs.
timm's names fix sizes and activation; what a checkpoint has otherwise goes into `options`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from clip_core.config import (
    Activation,
    ClipConfig,
    HfTokenizerConfig,
    PreprocessConfig,
    TextConfig,
    TimmConfig,
    TokenizerConfig,
)
from clip_core.config.values import Option, Options
from clip_core.convert.checkpoint import require
from clip_core.convert.pairs import Pair, copies
from clip_core.convert.transformers_clip import (
    activation_name,
    activation_of,
    encoder_fields,
    nested_settings,
    text_pairs,
    tower_settings,
)
from clip_core.errors import ConfigError
from clip_core.presets import parts

__all__ = [
    "TEXT",
    "VISION",
    "envelope",
    "from_settings",
    "pairs",
    "siglip_tokenizer",
    "sizes_of",
    "text_tower",
    "to_settings",
    "trunk_options",
    "trunk_pairs",
]

VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "vision_use_head": True,
}
TEXT = {
    "vocab_size": 32000,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 64,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}

# Of timm's SigLIP transformers: width, layers, heads, width of the MLP; then names: patch, image size, activation.
_SIZES = {
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "so400m": (1152, 27, 16, 4304),
    "giantopt": (1536, 40, 16, 6144),
}
_NAMES: dict[str, tuple[int, int, Activation]] = {
    "vit_base_patch16_siglip_224": (16, 224, "gelu"),
    "vit_base_patch16_siglip_256": (16, 256, "gelu"),
    "vit_base_patch16_siglip_384": (16, 384, "gelu"),
    "vit_base_patch16_siglip_512": (16, 512, "gelu"),
    "vit_base_patch32_siglip_256": (32, 256, "gelu_tanh"),
    "vit_large_patch16_siglip_256": (16, 256, "gelu"),
    "vit_large_patch16_siglip_384": (16, 384, "gelu"),
    "vit_large_patch16_siglip_512": (16, 512, "gelu_tanh"),
    "vit_so400m_patch14_siglip_224": (14, 224, "gelu"),
    "vit_so400m_patch14_siglip_378": (14, 378, "gelu"),
    "vit_so400m_patch14_siglip_384": (14, 384, "gelu"),
    "vit_so400m_patch16_siglip_256": (16, 256, "gelu_tanh"),
    "vit_so400m_patch16_siglip_384": (16, 384, "gelu_tanh"),
    "vit_so400m_patch16_siglip_512": (16, 512, "gelu_tanh"),
    "vit_giantopt_patch16_siglip_256": (16, 256, "gelu_tanh"),
    "vit_giantopt_patch16_siglip_384": (16, 384, "gelu_tanh"),
}
_EPS = 1e-6  # of timm's transformers
_GEMMA_IDS = 256_000

_TRUNK_BLOCK = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "attn.proj": "self_attn.out_proj",
}


def from_settings(
    settings: Mapping[str, Any], preprocess: PreprocessConfig, tokenizer: TokenizerConfig | None = None
) -> ClipConfig:
    """The model that a `config.json` of a SiglipModel states."""
    vision = nested_settings(settings, "vision_config", VISION)
    text = text_tower(nested_settings(settings, "text_config", TEXT), vision["hidden_size"])
    sizes = (vision["patch_size"], vision["image_size"])
    name = next((name for name in _NAMES if _NAMES[name][:2] == sizes and _of(name) == sizes_of(vision)), None)
    image = TimmConfig(
        name=name or "vit_base_patch16_siglip_224",
        image_size=vision["image_size"],
        pool="map",
        projection="none",
        options=trunk_options(vision, name, "gelu" if name is None else _NAMES[name][2]),
    )
    config = envelope(image, text, vision["hidden_size"], preprocess)
    return config if tokenizer is None else dataclasses.replace(config, tokenizer=tokenizer)


def envelope(image: TimmConfig, text: TextConfig, embed_dim: int, preprocess: PreprocessConfig) -> ClipConfig:
    """What SigLIP puts around its towers, with its tokenizer."""
    config = parts.model(
        embed_dim, image, text, layout="nested", logit_bias=-10.0, tokenizer=siglip_tokenizer(text, "siglip")
    )
    return dataclasses.replace(config, preprocess=preprocess)


def siglip_tokenizer(text: TextConfig, source: str) -> HfTokenizerConfig:
    """SigLIP's tokenizer, or SigLIP 2's, which Gemma's vocabulary gives away; as transformers cleans texts for it."""
    gemma = text.vocab_size == _GEMMA_IDS
    return HfTokenizerConfig(
        context_length=text.context_length,
        source=source,
        clean="lower" if gemma else "canonicalize",
        pad_id=0 if gemma else 1,
    )


def text_tower(settings: Mapping[str, Any], embed_dim: int) -> TextConfig:
    """The text tower that a configuration with every key of `text_config` states."""
    if (settings.get("projection_size") or settings["hidden_size"]) != embed_dim:
        raise ConfigError(
            f"text_config.projection_size is {settings.get('projection_size')}; allowed: vision_config.hidden_size, "
            f"{embed_dim}."
        )
    return TextConfig(
        context_length=settings["max_position_embeddings"],
        vocab_size=settings["vocab_size"],
        **encoder_fields("text_config", settings),
        causal=False,
        pool="last",
        projection="linear_bias",
    )


def trunk_options(vision: Mapping[str, Any], name: str | None, activation: Activation) -> Options:
    """What timm must be told beside `name`, whose own activation is given; everything, where `name` is None."""
    for field, allowed in (("layer_norm_eps", _EPS), ("num_channels", 3), ("vision_use_head", True)):
        if vision[field] != allowed:
            raise ConfigError(
                f"vision_config.{field} is {vision[field]}; allowed: {allowed}, as timm's towers have it."
            )
    options: dict[str, Option] = {}
    if name is None:
        width, mlp_dim = vision["hidden_size"], vision["intermediate_size"]
        ratio = mlp_dim / width
        options = {
            "depth": vision["num_hidden_layers"],
            "embed_dim": width,
            "mlp_ratio": ratio if int(width * ratio) == mlp_dim else math.nextafter(ratio, math.inf),
            "num_heads": vision["num_attention_heads"],
            "patch_size": vision["patch_size"],
        }
    held = activation_of("vision_config", vision["hidden_act"])
    if held != activation:
        options["act_layer"] = held
    return tuple(sorted(options.items()))


def sizes_of(vision: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Width, layers, heads and width of the MLP."""
    return (
        vision["hidden_size"],
        vision["num_hidden_layers"],
        vision["num_attention_heads"],
        vision["intermediate_size"],
    )


def _of(name: str) -> tuple[int, int, int, int]:
    return _SIZES[name.split("_")[1]]


def to_settings(config: ClipConfig) -> dict[str, Any]:
    """The `config.json` of a SiglipModel for `config`.

    Raises:
        ConfigError: `SiglipModel` cannot be this model; says which part of it.
    """
    image, text = config.image, config.text
    if not isinstance(image, TimmConfig) or image.name not in _NAMES or not isinstance(text, TextConfig):
        raise ConfigError(f"SiglipModel has one of timm's image towers {', '.join(_NAMES)} and a plain text tower.")
    require(
        "SiglipModel can only be",
        ("image.pool", image.pool, "map"),
        ("image.projection", image.projection, "none"),
        ("text.causal", text.causal, False),
        ("text.pool", text.pool, "last"),
        ("text.projection", text.projection, "linear_bias"),
        ("text.class_token", text.class_token, False),
        ("text.layer_scale", text.layer_scale, None),
        ("decoder", config.decoder, None),
        ("logit_bias", config.logit_bias is None, False),
    )
    options = dict(image.options)
    width, layers, heads, mlp_dim = _of(image.name)
    patch_size, _, activation = _NAMES[image.name]
    vision: dict[str, Any] = {
        "model_type": "siglip_vision_model",
        "hidden_size": options.pop("embed_dim", width),
        "num_hidden_layers": options.pop("depth", layers),
        "num_attention_heads": options.pop("num_heads", heads),
        "hidden_act": activation_name(options.pop("act_layer", activation)),  # type: ignore[arg-type]
        "image_size": image.image_size,
        "patch_size": options.pop("patch_size", patch_size),
        "num_channels": 3,
        "layer_norm_eps": _EPS,
        "attention_dropout": 0.0,
    }
    ratio = options.pop("mlp_ratio", None)
    hidden = vision["hidden_size"]
    vision["intermediate_size"] = mlp_dim * hidden // width if ratio is None else int(hidden * ratio)
    if options:
        raise ConfigError(f"image.options has {min(options)!r}, which SiglipModel has no word for.")
    return {
        "architectures": ["SiglipModel"],
        "model_type": "siglip",
        "initializer_factor": 1.0,
        "text_config": {
            "model_type": "siglip_text_model",
            **tower_settings(text),
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context_length,
            "projection_size": config.embed_dim,
        },
        "vision_config": vision,
    }


def pairs(config: ClipConfig) -> list[Pair]:
    """The table of a SiglipModel's tensors; `to_settings` has accepted `config` or `from_settings` made it."""
    assert isinstance(config.text, TextConfig)
    vision = to_settings(config)["vision_config"]
    ours, theirs = "visual.trunk.", "vision_model.embeddings."
    text = "" if config.layout == "flat" else "text."
    return [
        Pair(("logit_scale",), ("logit_scale",), "vector"),
        Pair(("logit_bias",), ("logit_bias",), "vector"),
        *copies({"patch_embed.proj": "patch_embedding"}, ours, theirs),
        Pair((f"{ours}pos_embed",), (f"{theirs}position_embedding.weight",), "row"),
        *trunk_pairs(vision["num_hidden_layers"]),
        *text_pairs(config.text, text),
        *copies({"text_projection": "text_model.head"}, text, ""),
    ]


def trunk_pairs(layers: int) -> list[Pair]:
    """Of timm's image tower behind its embeddings."""
    ours, theirs = "visual.trunk.", "vision_model."
    table = copies({"norm": "post_layernorm"}, ours, theirs)
    for layer in range(layers):
        mine, other = f"{ours}blocks.{layer}.", f"{theirs}encoder.layers.{layer}."
        table += copies(_TRUNK_BLOCK, mine, other)
        for part in ("weight", "bias"):
            packed = tuple(f"{other}self_attn.{name}_proj.{part}" for name in "qkv")
            table.append(Pair((f"{mine}attn.qkv.{part}",), packed, "stacked"))
    pool, head = f"{ours}attn_pool.", f"{theirs}head."
    names = {"proj": "attention.out_proj", "norm": "layernorm", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
    table += [Pair((f"{pool}latent",), (f"{head}probe",)), *copies(names, pool, head)]
    for part in ("weight", "bias"):
        table.append(Pair((f"{pool}q.{part}", f"{pool}kv.{part}"), (f"{head}attention.in_proj_{part}",), "split"))
    return table
