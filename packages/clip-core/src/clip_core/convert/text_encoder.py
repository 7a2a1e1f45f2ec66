"""A text encoder of transformers -> the text tower of a model that exists: a start for training, as OpenCLIP's
`hf_model_pretrained`.

The folder may hold the encoder alone or a model around it (`roberta.encoder...` beside a `lm_head`, mT5 with its
decoder): the rest is left out, which is logged.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from clip_core.config import HfTextConfig
from clip_core.convert.checkpoint import read_json
from clip_core.convert.image_tower import fill
from clip_core.convert.reading import read_shards
from clip_core.errors import CheckpointMismatch, ConfigError
from clip_core.model import Clip

__all__ = ["load_text_tower"]

log = logging.getLogger(__name__)

# What stands before an encoder's names in a model around it.
_PREFIXES = ("", "roberta.", "bert.", "model.", "encoder.", "model.encoder.")
# Encoders with a decoder share its table of tokens.
_SHARED = {"embed_tokens.weight": ("shared.weight", "model.shared.weight")}
# BERT's first checkpoints have TensorFlow's words for a norm.
_OLD_NORM = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
# Of what a configuration states, these change training alone.
_TRAINING = ("dropout", "init", "layerdrop")


def load_text_tower(model: Clip, path: str | os.PathLike[str]) -> list[str]:
    """Put the weights of an encoder of transformers into the text tower of `model`, in the dtype and place it has.

    Args:
        model: its text tower is an encoder of transformers (`HfTextConfig`).
        path: a folder with `config.json` and weights.

    Returns:
        The parameters of the tower that keep the values they had, by their names in `model`: its projection, and the
        pooling layer of BERT where the folder has none.

    Raises:
        ConfigError: this text tower is another one, or the folder states no encoder.
        CheckpointMismatch: the folder's encoder is another one than the tower's, or its weights cannot be read.
    """
    folder, config = Path(path), model.config.text
    if not isinstance(config, HfTextConfig):
        raise ConfigError(f"The text tower is of kind {config.kind!r}; allowed: 'hf', an encoder of transformers.")
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; allowed: one with config.json and weights of transformers.")
    _require_alike(config, read_json(folder / "config.json"), folder)
    held = read_shards(folder, {path.name for path in folder.iterdir()}, None)
    tower = model.text_tower
    ours = {key.removeprefix("transformer."): key for key in tower.state_dict() if key.startswith("transformer.")}
    optional = {key for key in tower.state_dict() if not key.startswith("transformer.") or ".pooler." in key}
    found, left = _matched(held, ours)
    if left:
        log.info("Left out of %s, as no part of the encoder: %s and others", folder, min(left))
    kept = fill(tower, tower.adapt_text_weights(found), optional, folder)
    log.info("The text tower has the weights of %s; %s keep theirs", folder, ", ".join(kept) or "no other parameters")
    return [f"{model.text_prefix}{key}" for key in kept]


def _matched(held: Mapping[str, Tensor], ours: Mapping[str, str]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of `held` that are of the encoder, under the tower's names, and the names of the others."""
    for old, current in _OLD_NORM.items():
        held = {key.replace(old, current): value for key, value in held.items()}
    prefix = max(_PREFIXES, key=lambda prefix: sum(f"{prefix}{key}" in held for key in ours))
    # What begins like one of the encoder's own parts belongs to it, and may then be one layer too many.
    parts = {key.partition(".")[0] for key in ours}
    found: dict[str, Tensor] = {}
    left: list[str] = []
    for key, value in held.items():
        inner = key.removeprefix(prefix)
        if key.startswith(prefix) and inner.partition(".")[0] in parts:
            found[ours.get(inner, f"transformer.{inner}")] = value
        else:
            left.append(key)
    for mine, theirs in _SHARED.items():
        source = next((key for key in theirs if key in held), None)
        if mine in ours and ours[mine] not in found and source is not None:
            found[ours[mine]] = held[source]
            left.remove(source)
    return found, left


def _require_alike(config: HfTextConfig, stated: Mapping[str, Any], folder: Path) -> None:
    """Refuse an encoder that computes something else: another type, activation, number of heads ..."""
    import transformers

    kind = stated.get("model_type")
    if kind != config.model_type:
        raise CheckpointMismatch(
            f"{folder} holds a {kind!r}, the text tower is a {config.model_type!r}. Create a model with that encoder."
        )
    # transformers leaves out what equals a default.
    whole = transformers.CONFIG_MAPPING[config.model_type](**stated)
    settings = {**dict(config.settings), "pad_token_id": config.pad_id}
    for key, asked in settings.items():
        held = getattr(whole, key, asked)
        if held != asked and not any(word in key for word in _TRAINING):
            raise CheckpointMismatch(
                f"{folder} has {key} {held!r} and the text tower {asked!r}. Create a model with that encoder."
            )
