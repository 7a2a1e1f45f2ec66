"""transformers' `ChineseCLIPModel` and `VisionTextDualEncoderModel` -> CLIP with a text encoder of transformers.

Chinese CLIP has CLIP's image tower and BERT without its pooling layer. A dual encoder joins any two models; here the
image half may be CLIP's or a plain ViT, the text half BERT or (XLM-)RoBERTa with its pooling layer. Reading only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from clip_core.config import (
    ClipConfig,
    HfTextConfig,
    HfTokenizerConfig,
    PreprocessConfig,
    TokenizerConfig,
    VitConfig,
)
from clip_core.convert.pairs import Pair, copies, with_patch_bias
from clip_core.convert.transformers_clip import VISION, nested_settings, vision_pairs, vision_tower
from clip_core.errors import ConfigError

__all__ = ["folded", "from_settings", "hf_tokenizer", "pairs"]

_CHINESE = "chinese_clip"
# The longest caption that Chinese CLIP was trained with (Yang et al. 2022); its BERT has positions for 512.
_CHINESE_CONTEXT = 52

# Values of transformers' configurations that change what an encoder computes, or how it is trained; with the defaults
# of BERT's. RoBERTa's first position is behind the padding id, so it has two positions fewer than its table.
_BERT: dict[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
    "pad_token_id": 0,
}
_TEXT = {
    _CHINESE: _BERT,
    "bert": _BERT,
    "roberta": {**_BERT, "vocab_size": 50265, "pad_token_id": 1},
    "xlm-roberta": {**_BERT, "pad_token_id": 1},
}
_SEPARATE = ("vocab_size", "hidden_size", "pad_token_id")  # fields of `HfTextConfig`, not settings
_VIT: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "qkv_bias": True,
    "pooler_act": "tanh",
}
_CLIP_VISION = ("clip", "clip_vision_model")

_VIT_BLOCK = {
    "ln_1": "layernorm_before",
    "ln_2": "layernorm_after",
    "mlp.c_fc": "intermediate.dense",
    "mlp.c_proj": "output.dense",
    "attn.out_proj": "attention.output.dense",
}
_BERT_BLOCK = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)


def from_settings(
    settings: Mapping[str, Any], preprocess: PreprocessConfig, tokenizer: TokenizerConfig | None = None
) -> ClipConfig:
    """The model that a `config.json` of a ChineseCLIPModel or a VisionTextDualEncoderModel states."""
    text = _text(settings)
    return ClipConfig(
        embed_dim=settings.get("projection_dim", 512),
        image=_image(settings),
        text=text,
        layout="nested",
        logit_scale=float(settings.get("logit_scale_init_value", 2.6592)),
        logit_bias=None,
        preprocess=preprocess,
        tokenizer=tokenizer or hf_tokenizer(text, text.model_type),
    )


def hf_tokenizer(text: HfTextConfig, source: str) -> HfTokenizerConfig:
    """The tokenizer of `source`, which cleans texts itself."""
    return HfTokenizerConfig(context_length=text.context_length, source=source, clean="none", pad_id=text.pad_id)


def _image(settings: Mapping[str, Any]) -> VitConfig:
    held = settings.get("vision_config") or {}
    kind = held.get("model_type", "vit")
    if settings["model_type"] == _CHINESE or kind in _CLIP_VISION:
        return vision_tower(nested_settings(settings, "vision_config", VISION))
    if kind != "vit":
        raise ConfigError(f"vision_config.model_type is {kind!r}; allowed: 'vit', 'clip_vision_model'.")
    vision = nested_settings(settings, "vision_config", _VIT)
    for field, allowed in (("qkv_bias", True), ("pooler_act", "tanh")):
        if vision[field] != allowed:
            raise ConfigError(f"vision_config.{field} is {vision[field]!r}; allowed: {allowed!r}.")
    return dataclasses.replace(vision_tower(vision), pre_norm=False, dense_pool=True)


def _text(settings: Mapping[str, Any]) -> HfTextConfig:
    chinese = settings["model_type"] == _CHINESE
    held = settings.get("text_config") or {}
    kind = _CHINESE if chinese else held.get("model_type", "bert")
    if kind not in _TEXT:
        raise ConfigError(f"text_config.model_type is {kind!r}; allowed: 'bert', 'roberta', 'xlm-roberta'.")
    text = nested_settings(settings, "text_config", _TEXT[kind])
    if text.get("position_embedding_type", "absolute") != "absolute":
        raise ConfigError(f"text_config.position_embedding_type is {text['position_embedding_type']!r}.")
    positions = text["max_position_embeddings"] - (0 if kind in (_CHINESE, "bert") else text["pad_token_id"] + 1)
    return HfTextConfig(
        model_type="bert" if chinese else kind,  # type: ignore[arg-type]  # the record checks it
        settings=tuple((key, text[key]) for key in _BERT if key not in _SEPARATE),
        width=text["hidden_size"],
        context_length=min(positions, _CHINESE_CONTEXT) if chinese else positions,
        vocab_size=text["vocab_size"],
        pad_id=text["pad_token_id"],
        pool="first" if chinese else "cls",
        projection="linear",
    )


def pairs(config: ClipConfig) -> list[Pair]:
    """The table of the tensors of a model that `from_settings` made; `folded` has prepared theirs."""
    image, text = config.image, config.text
    assert isinstance(image, VitConfig)
    assert isinstance(text, HfTextConfig)
    encoder = ["embeddings.LayerNorm"]
    for layer in range(int(dict(text.settings)["num_hidden_layers"])):  # type: ignore[arg-type]
        encoder += [f"encoder.layer.{layer}.{module}" for module in _BERT_BLOCK]
    if text.pool == "cls":
        encoder.append("pooler.dense")
    tables = [f"embeddings.{name}_embeddings" for name in ("word", "position", "token_type")]
    return [
        Pair(("logit_scale",), ("logit_scale",)),
        *(_vit_pairs(image) if image.dense_pool else vision_pairs(image)),
        *copies({name: name for name in encoder}, "text.transformer.", "text_model."),
        *copies({name: name for name in tables}, "text.transformer.", "text_model.", ["weight"]),
        Pair(("text.proj.weight",), ("text_projection.weight",)),
    ]


def _vit_pairs(image: VitConfig) -> list[Pair]:
    theirs = "vision_model."
    table = [
        Pair(("visual.class_embedding",), (f"{theirs}embeddings.cls_token",)),
        Pair(("visual.conv1.weight",), (f"{theirs}embeddings.patch_embeddings.projection.weight",)),
        Pair(("visual.positional_embedding",), (f"{theirs}embeddings.position_embeddings",)),
        *copies({"ln_post": "layernorm", "pooler": "pooler.dense"}, "visual.", theirs),
        Pair(("visual.proj",), ("visual_projection.weight",), "turned"),
    ]
    for layer in range(image.layers):
        mine, other = f"visual.transformer.resblocks.{layer}.", f"{theirs}encoder.layer.{layer}."
        table += copies(_VIT_BLOCK, mine, other)
        for part in ("weight", "bias"):
            packed = tuple(f"{other}attention.attention.{name}.{part}" for name in ("query", "key", "value"))
            table.append(Pair((f"{mine}attn.in_proj_{part}",), packed, "stacked"))
    return table


def folded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` of theirs with a ViT's embeddings in the shapes of our tower, which has no bias in its convolution."""
    # CLIP's image tower inside a dual encoder used to be wrapped once more.
    found = {
        key.replace("vision_model.vision_model.", "vision_model."): value
        for key, value in tensors.items()
        if not key.endswith("token_type_ids")
    }
    embeddings = "vision_model.embeddings."
    bias = found.pop(f"{embeddings}patch_embeddings.projection.bias", None)
    if bias is None:
        return found
    found[f"{embeddings}position_embeddings"] = with_patch_bias(found[f"{embeddings}position_embeddings"][0], bias)
    found[f"{embeddings}cls_token"] = found[f"{embeddings}cls_token"].flatten()
    return found
