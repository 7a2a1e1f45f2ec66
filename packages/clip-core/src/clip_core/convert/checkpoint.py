"""What every format is read into: the model that a file or folder states, and its tensors under our names."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from clip_core.config import ClipConfig
from clip_core.errors import ConfigError

__all__ = ["Checkpoint", "differences", "placed", "read_json", "require"]

_TEXT_TOWER = ("text_projection", "positional_embedding", "token_embedding.", "transformer.", "ln_final.")

# What says how a model is trained or what its parameters begin at, where its tensors lie, or where a vocabulary was
# found: two models may differ in it and give the same features with the same weights.
_FREE = (
    "layout",
    "logit_scale",
    "image.patch_dropout",
    "image.drop_path",
    "image.head_dropout",
    "image.positions",
    "tokenizer.source",
)
# Whether there is one changes the features, its initial value does not.
_INITIAL = ("logit_bias", "image.layer_scale", "text.layer_scale")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """Weights somewhere, and the model that they belong to.

    `config` is None where nothing says it: weights of OpenCLIP in a file of their own. `tensors(config)` reads them
    under the names that the model of `config` has; `config` may differ from the checkpoint's own in what
    `differences` leaves out.
    """

    path: Path
    layout: str
    """What to call the format in a message: "bundle", "transformers CLIPModel"."""
    config: ClipConfig | None
    tensors: Callable[[ClipConfig], dict[str, Tensor]]


def differences(asked: ClipConfig, held: ClipConfig) -> dict[str, tuple[Any, Any]]:
    """The fields, by dotted name, that change features and differ: name -> (asked, held)."""
    ours, theirs = _flat(asked), _flat(held)
    return {
        key: (ours.get(key), theirs.get(key))
        for key in {**ours, **theirs}
        if key not in _FREE and ours.get(key) != theirs.get(key)
    }


def _flat(config: ClipConfig) -> dict[str, Any]:
    def walk(value: Any, prefix: str) -> dict[str, Any]:
        if isinstance(value, dict):
            return {k: v for key, item in value.items() for k, v in walk(item, f"{prefix}{key}.").items()}
        return {prefix.rstrip("."): value}

    flat = walk(config.to_json(), "")
    for key in _INITIAL:
        if flat.get(key) is not None:
            flat[key] = "learned"
    # End of text is the highest id of CLIP's vocabulary, so these two find the same position.
    if flat.get("text.pool") == "eos" and flat.get("text.eos_id") == flat["text.vocab_size"] - 1:
        flat["text.pool"], flat["text.eos_id"] = "highest_id", None
    # A padding id is read by masks only, which a tower without them does not have.
    if flat["text.kind"] == "transformer" and not flat["text.class_token"]:
        flat["text.pad_id"] = 0
    return flat


def placed(tensors: Mapping[str, Tensor], config: ClipConfig) -> dict[str, Tensor]:
    """`tensors` with OpenCLIP's names, flat or nested, under the names that `config.layout` gives them.

    The scale and bias of the logits become scalars, which some checkpoints hold as one-element vectors.
    """
    nested = any(key.startswith("text.") for key in tensors)
    found: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if nested and config.layout == "flat":
            key = key.removeprefix("text.")
        elif not nested and config.layout == "nested" and key.startswith(_TEXT_TOWER):
            key = f"text.{key}"
        found[key] = value.reshape(()) if key in ("logit_scale", "logit_bias") and value.numel() == 1 else value
    return found


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON object in `path`; raises `ConfigError` naming the file and what is wrong."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"There is no file {os.fspath(path)}.") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{os.fspath(path)} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{os.fspath(path)} holds a JSON {type(content).__name__}; allowed: an object.")
    return content


def require(verb: str, *fields: tuple[str, object, object]) -> None:
    """Raise `ConfigError` for the first (name, value held, value allowed) that differs; `verb`: "timm can only be"."""
    for name, held, allowed in fields:
        if held != allowed:
            raise ConfigError(f"{name} is {held!r}; {verb} {allowed!r}.")
