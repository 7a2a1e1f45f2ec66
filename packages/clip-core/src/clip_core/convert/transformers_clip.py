"""transformers' `CLIPModel` <-> a CLIP with a vision transformer and a causal text tower.

The tables of the two towers also serve the families that have one of them (`transformers_siglip`,
`transformers_dual`). `config.json` leaves out what equals a default; the defaults of the format stand here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from clip_core.config import (
    Activation,
    ClipConfig,
    ClipTokenizerConfig,
    PreprocessConfig,
    TextConfig,
    TokenizerConfig,
    VitConfig,
)
from clip_core.convert.checkpoint import require
from clip_core.convert.pairs import Pair, copies
from clip_core.errors import ConfigError

__all__ = [
    "VISION",
    "activation_name",
    "activation_of",
    "encoder_fields",
    "from_settings",
    "nested_settings",
    "pairs",
    "text_pairs",
    "to_settings",
    "tower_settings",
    "vision_pairs",
    "vision_tower",
]

VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "num_channels": 3,
}
_TEXT = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}

_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "quick_gelu": "quick_gelu",
}

# In configurations from before this number was put right, it means "the highest id".
_OLD_EOS = 2

# Modules of a block: ours -> theirs.
_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def activation_of(where: str, name: object) -> Activation:
    """Our word for transformers' `hidden_act`; raises `ConfigError` for one that no tower of ours has."""
    if name not in _ACTIVATIONS:
        raise ConfigError(f"{where}.hidden_act is {name!r}; allowed: {', '.join(map(repr, _ACTIVATIONS))}.")
    return _ACTIVATIONS[str(name)]


def activation_name(activation: Activation) -> str:
    """The `hidden_act` of transformers for our activation."""
    return next(name for name, ours in _ACTIVATIONS.items() if ours == activation)


def nested_settings(settings: Mapping[str, Any], name: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of one tower, `name` ("text_config"), completed with `defaults`.

    An older key, `name` with "_dict" behind it, overrides it, and its own defaults do too, as in transformers.
    """
    older = settings.get(f"{name}_dict")
    held = settings.get(name) if older is None else older
    if not isinstance(held or {}, Mapping):
        raise ConfigError(f"{name} is {held!r}; allowed: an object.")
    # Nulls come from configurations that were written with every key of every model.
    given = {key: value for key, value in (held or {}).items() if value is not None}
    return {**defaults, **given}


def encoder_fields(where: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What `VitConfig` and `TextConfig` share, of a configuration with every key of one of transformers' encoders."""
    return {
        "width": settings["hidden_size"],
        "layers": settings["num_hidden_layers"],
        "heads": settings["num_attention_heads"],
        "mlp_dim": settings["intermediate_size"],
        "activation": activation_of(where, settings["hidden_act"]),
        "norm_eps": settings["layer_norm_eps"],
    }


def vision_tower(settings: Mapping[str, Any]) -> VitConfig:
    """The image tower that a configuration with every key of `vision_config` states."""
    if settings["num_channels"] != 3:
        raise ConfigError(f"vision_config.num_channels is {settings['num_channels']}; allowed: 3.")
    size = settings["image_size"]
    return VitConfig(
        image_size=tuple(size) if isinstance(size, list) else size,
        patch_size=settings["patch_size"],
        **encoder_fields("vision_config", settings),
    )


def from_settings(
    settings: Mapping[str, Any], preprocess: PreprocessConfig, tokenizer: TokenizerConfig | None = None
) -> ClipConfig:
    """The model that a `config.json` of a CLIPModel states."""
    text = nested_settings(settings, "text_config", _TEXT)
    pool: Literal["highest_id", "eos"] = "eos"
    if text["eos_token_id"] in (_OLD_EOS, text["vocab_size"] - 1):
        pool = "highest_id"
    return ClipConfig(
        embed_dim=settings.get("projection_dim", 512),
        image=vision_tower(nested_settings(settings, "vision_config", VISION)),
        text=TextConfig(
            context_length=text["max_position_embeddings"],
            vocab_size=text["vocab_size"],
            **encoder_fields("text_config", text),
            pool=pool,
            eos_id=text["eos_token_id"] if pool == "eos" else None,
        ),
        logit_scale=float(settings.get("logit_scale_init_value", 2.6592)),
        logit_bias=None,
        preprocess=preprocess,
        tokenizer=tokenizer or ClipTokenizerConfig(context_length=text["max_position_embeddings"]),
    )


def to_settings(config: ClipConfig) -> dict[str, Any]:
    """The `config.json` of a CLIPModel for `config`.

    Raises:
        ConfigError: `CLIPModel` cannot be this model; says which part of it.
    """
    image, text = config.image, config.text
    if not isinstance(image, VitConfig) or not isinstance(text, TextConfig):
        raise ConfigError(f"CLIPModel has a plain ViT and OpenAI's text tower, not {image.kind!r} and {text.kind!r}.")
    require(
        "CLIPModel can only be",
        ("image.pool", image.pool, "token"),
        ("image.attention_pool", image.attention_pool, None),
        ("image.pre_norm", image.pre_norm, True),
        ("image.layer_scale", image.layer_scale, None),
        ("text.layer_scale", text.layer_scale, None),
        ("text.causal", text.causal, True),
        ("text.class_token", text.class_token, False),
        ("text.projection", text.projection, "linear"),
        ("decoder", config.decoder, None),
        ("logit_bias", config.logit_bias, None),
    )
    if text.pool not in ("highest_id", "eos"):
        raise ConfigError(f"text.pool is {text.pool!r}; CLIPModel can only be 'highest_id' or 'eos'.")
    eos_id = text.vocab_size - 1 if text.eos_id is None else text.eos_id
    if eos_id == _OLD_EOS:
        raise ConfigError(f"text.eos_id is {eos_id}, which means 'highest_id' to CLIPModel.")
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.embed_dim,
        "logit_scale_init_value": config.logit_scale,
        "initializer_factor": 1.0,
        "text_config": {
            "model_type": "clip_text_model",
            "projection_dim": config.embed_dim,
            **tower_settings(text),
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context_length,
            "bos_token_id": eos_id - 1,
            "eos_token_id": eos_id,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "projection_dim": config.embed_dim,
            **tower_settings(image),
            "image_size": list(image.image_size) if isinstance(image.image_size, tuple) else image.image_size,
            "patch_size": image.patch_size,
            "num_channels": 3,
        },
    }


def tower_settings(tower: VitConfig | TextConfig) -> dict[str, Any]:
    """What the two towers' configurations have in common."""
    return {
        "hidden_size": tower.width,
        "intermediate_size": tower.mlp_dim,
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
        "hidden_act": activation_name(tower.activation),
        "layer_norm_eps": tower.norm_eps,
        "attention_dropout": 0.0,
    }


def pairs(config: ClipConfig) -> list[Pair]:
    """The table of a CLIPModel's tensors; `to_settings` has accepted `config` or `from_settings` made it."""
    assert isinstance(config.image, VitConfig)
    assert isinstance(config.text, TextConfig)
    ours = "" if config.layout == "flat" else "text."
    return [
        Pair(("logit_scale",), ("logit_scale",)),
        *vision_pairs(config.image),
        *text_pairs(config.text, ours),
        Pair((f"{ours}text_projection",), ("text_projection.weight",), "turned"),
    ]


def vision_pairs(image: VitConfig) -> list[Pair]:
    """Of an image tower with its projection."""
    theirs = "vision_model."
    return [
        Pair(("visual.class_embedding",), (f"{theirs}embeddings.class_embedding",)),
        Pair(("visual.conv1.weight",), (f"{theirs}embeddings.patch_embedding.weight",)),
        Pair(("visual.positional_embedding",), (f"{theirs}embeddings.position_embedding.weight",)),
        *copies({"ln_pre": "pre_layrnorm", "ln_post": "post_layernorm"}, "visual.", theirs),  # their spelling
        *_blocks(image.layers, "visual.", theirs),
        Pair(("visual.proj",), ("visual_projection.weight",), "turned"),
    ]


def text_pairs(text: TextConfig, ours: str) -> list[Pair]:
    """Of a text tower without its projection; `ours` is what our names begin with."""
    theirs = "text_model."
    return [
        Pair((f"{ours}token_embedding.weight",), (f"{theirs}embeddings.token_embedding.weight",)),
        Pair((f"{ours}positional_embedding",), (f"{theirs}embeddings.position_embedding.weight",)),
        *_blocks(text.layers, ours, theirs),
        *copies({"ln_final": "final_layer_norm"}, ours, theirs),
    ]


def _blocks(layers: int, ours: str, theirs: str) -> list[Pair]:
    table: list[Pair] = []
    for layer in range(layers):
        mine, other = f"{ours}transformer.resblocks.{layer}.", f"{theirs}encoder.layers.{layer}."
        table += copies(_BLOCK, mine, other)
        for part in ("weight", "bias"):
            packed = tuple(f"{other}self_attn.{name}_proj.{part}" for name in "qkv")
            table.append(Pair((f"{mine}attn.in_proj_{part}",), packed, "stacked"))
    return table
