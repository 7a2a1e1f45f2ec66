"""The `config.json` beside PaddleNLP's `model_state.pdparams`, in the words of transformers' `CLIPModel`.

Folders that were converted from the Hub have those words already. PaddleNLP's own, older ones stand side by side in one
object: `vision_layers`, `text_embed_dim`, ... Source: `paddlenlp.transformers.clip.configuration`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clip_core.errors import ConfigError

__all__ = ["PADDLE_WEIGHTS", "paddle_settings"]

PADDLE_WEIGHTS = "model_state.pdparams"
"""What PaddleNLP calls the file of weights."""

_TEXT = {
    "max_text_length": "max_position_embeddings",
    "vocab_size": "vocab_size",
    "text_embed_dim": "hidden_size",
    "text_heads": "num_attention_heads",
    "text_layers": "num_hidden_layers",
    "text_hidden_act": "hidden_act",
}
_VISION = {
    "image_resolution": "image_size",
    "vision_layers": "num_hidden_layers",
    "vision_heads": "num_attention_heads",
    "vision_embed_dim": "hidden_size",
    "vision_patch_size": "patch_size",
    "vision_hidden_act": "hidden_act",
}
# PaddleNLP reads a text at its highest id, which transformers writes so.
_HIGHEST_ID = {"eos_token_id": 2}
_MLP_RATIO = 4
_EPS = 1e-5  # PaddleNLP's layers never take another


def paddle_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings`, the content of the `config.json`, as that of a CLIPModel of transformers.

    Raises:
        ConfigError: it is another model than CLIP, the image tower is a ResNet, or the norms have an epsilon that
            PaddleNLP would not heed.
    """
    kind = settings.get("model_type", "clip")
    if kind != "clip":
        raise ConfigError(f"model_type is {kind!r}; allowed: 'clip', since of PaddleNLP's models CLIP can be read.")
    found = dict(settings)
    if "vision_layers" in settings or "text_layers" in settings:
        if isinstance(settings.get("vision_layers"), list):
            raise ConfigError(
                f"vision_layers is {settings['vision_layers']}, a ResNet; allowed: a number, since of PaddleNLP's "
                "models those with a vision transformer can be read."
            )
        found = {key: value for key, value in settings.items() if key not in _TEXT and key not in _VISION}
        ratio = settings.get("vision_mlp_ratio", _MLP_RATIO)
        found["text_config"] = _tower(settings, _TEXT, _MLP_RATIO)
        found["vision_config"] = _tower(settings, _VISION, _MLP_RATIO if ratio is None else ratio)
    older = found.pop("text_config_dict", None)
    found["text_config"] = {**((older if older is not None else found.get("text_config")) or {}), **_HIGHEST_ID}
    for name in ("text_config", "vision_config"):
        eps = (found.get(name) or {}).get("layer_norm_eps", _EPS)
        if eps != _EPS:
            raise ConfigError(f"{name}.layer_norm_eps is {eps}; allowed: {_EPS}, with which PaddleNLP computes.")
    return {**found, "model_type": "clip"}


def _tower(settings: Mapping[str, Any], names: Mapping[str, str], ratio: float) -> dict[str, Any]:
    tower = {theirs: settings[key] for key, theirs in names.items() if settings.get(key) is not None}
    if "hidden_size" in tower:
        tower["intermediate_size"] = int(ratio * tower["hidden_size"])
    return tower
