"""Models together with what they need: create one by name, save it as one folder, load that folder with no network.

A bundle is a folder with `clip_config.json` (a `ClipConfig` and the number of its schema) and `model.safetensors`.
The weights must fit the configuration exactly. Names of published weights belong to clip-hub.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Literal

import torch

from clip_core.config import ClipConfig
from clip_core.device import resolve_device
from clip_core.errors import CheckpointMismatch, ConfigError, StorageError
from clip_core.model import Clip
from clip_core.preprocess import AugmentConfig, Transform, build_transform
from clip_core.presets import get_config
from clip_core.schema import JSON
from clip_core.tokenizer import ClipTokenizer, Tokenizer
from clip_core.weights import SUFFIXES, load_weights, read_weights

__all__ = [
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "Bundle",
    "Precision",
    "build",
    "create",
    "create_model",
    "create_model_and_transforms",
    "get_tokenizer",
    "load",
    "read_config",
    "save",
]

CONFIG_FILE = "clip_config.json"
WEIGHTS_FILE = "model.safetensors"
SCHEMA = 1

Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """A model in evaluation mode and everything that makes its inputs."""

    model: Clip
    preprocess: Transform
    """PIL image -> float32 (3, size, size)."""
    tokenizer: Tokenizer
    """Texts -> int64 (B, context_length)."""
    config: ClipConfig

    @classmethod
    def of(cls, model: Clip) -> Bundle:
        """`model` with the transform and the tokenizer that its configuration states."""
        config = model.config
        return cls(
            model=model,
            preprocess=build_transform(config.preprocess),
            tokenizer=ClipTokenizer(context_length=config.tokenizer.context_length),
            config=config,
        )


def build(
    config: ClipConfig,
    weights: str | os.PathLike[str] | None = None,
    *,
    precision: Precision = "fp32",
    device: str | torch.device = "cpu",
) -> Clip:
    """The model that `config` states, in evaluation mode, with the weights of a file or freshly drawn ones.

    It is laid out on the meta device first, so that memory holds the weights once: those of the file are taken over
    as they are, and only a model without a file draws random ones (from torch's global generator).

    Args:
        config: what to build.
        weights: a `.safetensors`, `.pt`, `.pth` or `.bin` file, or None.
        precision: dtype of the parameters. The scale and bias of the logits stay in float32.
        device: "meta" gives the layout alone, without memory and without values; no weights are read.

    Raises:
        ConfigError: unknown precision, or a device that is not there.
        CheckpointMismatch: the file cannot be read or does not fit.
    """
    if precision not in _DTYPES:
        raise ConfigError(
            f"precision is {precision!r}; allowed: {', '.join(_DTYPES)}. Mixed precision ('amp') is a way of running "
            "a fp32 model: torch.autocast, or --precision of clip-train."
        )
    device = resolve_device(device, meta=True)
    with torch.device("meta"):
        model = Clip(config)
    if device.type == "meta":
        pass  # the layout alone was asked for
    elif weights is not None:
        load_weights(model, read_weights(weights), weights)
    else:
        model.to_empty(device="cpu")
        with torch.no_grad():
            model.reset_parameters()
    dtype = _DTYPES[precision]
    for name, parameter in model.named_parameters():
        kept = name in ("logit_scale", "logit_bias")
        parameter.data = parameter.data.to(device=device, dtype=torch.float32 if kept else dtype)
    return model.eval()


def create_model(
    name: str,
    pretrained: str | os.PathLike[str] | None = None,
    precision: Precision = "fp32",
    device: str | torch.device = "cpu",
) -> Clip:
    """The architecture `name` in evaluation mode, with the weights of `pretrained` or freshly drawn ones.

    Args:
        name: one of `list_models()`.
        pretrained: a weights file in OpenCLIP's layout, or a bundle folder; a tag needs `clip_hub.create_model`.
        precision: dtype of the parameters: "fp32", "bf16" or "fp16".
        device: "meta" builds the layout without memory.

    Raises:
        UnknownModel: no such architecture; the nearest names are listed.
        ConfigError: `pretrained` is neither a file nor a folder, or a folder with another configuration.
        CheckpointMismatch: the weights cannot be read or do not fit.
    """
    config = get_config(name)
    return build(config, _find_weights(name, config, pretrained), precision=precision, device=device)


def create_model_and_transforms(
    name: str,
    pretrained: str | os.PathLike[str] | None = None,
    precision: Precision = "fp32",
    device: str | torch.device = "cpu",
    *,
    augment: AugmentConfig | None = None,
) -> tuple[Clip, Transform, Transform]:
    """As `create_model`, with the training transform and the evaluation transform: (model, train, eval)."""
    model = create_model(name, pretrained, precision=precision, device=device)
    preprocess = model.config.preprocess
    return model, build_transform(preprocess, train=True, augment=augment), build_transform(preprocess)


def create(
    name: str,
    pretrained: str | os.PathLike[str] | None = None,
    precision: Precision = "fp32",
    device: str | torch.device = "cpu",
) -> Bundle:
    """As `create_model`, with the transform and the tokenizer beside the model."""
    return Bundle.of(create_model(name, pretrained, precision=precision, device=device))


def get_tokenizer(name: str, context_length: int | None = None) -> Tokenizer:
    """The tokenizer of architecture `name`, for its own context length unless another is asked for."""
    config = get_config(name)
    return ClipTokenizer(context_length=config.tokenizer.context_length if context_length is None else context_length)


def save(bundle: Bundle, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write `bundle` as a folder that `load` reads anywhere; the folder appears whole or not at all.

    Args:
        bundle: what to write; parameters keep their dtype.
        folder: where; its parents are made.
        overwrite: replace a bundle that is already there. A folder that holds anything else is never replaced.

    Raises:
        ConfigError: the folder exists and is neither empty nor a bundle that may be replaced, or the model is on the
            meta device and has no values.
        StorageError: it cannot be written there, or the disk is full.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if bundle.model.text_projection.is_meta:
        raise ConfigError("A model on the meta device has no weights to save; create it on another device.")
    target = Path(folder).resolve()
    held = {path.name for path in target.iterdir()} if target.is_dir() else set()
    if target.is_file() or (held and not overwrite):
        raise ConfigError(f"{folder} already exists; choose another folder or pass overwrite=True to replace a bundle.")
    if Path.cwd().is_relative_to(target):
        raise ConfigError(f"{folder} is the current folder or holds it; choose a folder inside it.")
    if held - {CONFIG_FILE, WEIGHTS_FILE}:
        raise ConfigError(f"{folder} holds more than a bundle ({min(held)} ...) and is not replaced; choose another.")
    # Everything is written beside the target first: a kill or a full disk never leaves half a bundle under its name.
    scratch = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    old = scratch.with_suffix(".old")
    try:
        scratch.mkdir(parents=True)
        content = {"schema": SCHEMA, "model": bundle.config.to_json()}
        (scratch / CONFIG_FILE).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        tensors = {key: value.detach().contiguous() for key, value in bundle.model.state_dict().items()}
        save_file(tensors, scratch / WEIGHTS_FILE, metadata={"format": "pt"})
        if target.is_dir():
            target.rename(old)
        scratch.rename(target)
    except BaseException as error:
        if old.exists():
            old.rename(target)
        shutil.rmtree(scratch, ignore_errors=True)
        if isinstance(error, (OSError, SafetensorError)):
            needed = sum(value.nbytes for value in bundle.model.state_dict().values())
            raise StorageError(
                f"Cannot write the bundle {folder}, about {needed / 1e6:.1f} MB: {error}. Nothing was left there; make "
                "room or choose another folder."
            ) from error
        raise
    if old.exists():
        shutil.rmtree(old)
    return Path(folder)


def load(
    folder: str | os.PathLike[str], *, precision: Precision = "fp32", device: str | torch.device = "cpu"
) -> Bundle:
    """The bundle in `folder`, with no network and no pickle.

    Raises:
        ConfigError: the folder is missing or is no bundle, or its configuration is not valid.
        CheckpointMismatch: its weights are missing, damaged or do not fit its configuration.
    """
    folder = Path(folder)
    config = read_config(folder)
    return Bundle.of(build(config, folder / WEIGHTS_FILE, precision=precision, device=device))


def read_config(folder: str | os.PathLike[str]) -> ClipConfig:
    """The configuration of the bundle in `folder`; raises `ConfigError` naming the file and what is wrong."""
    path = Path(folder) / CONFIG_FILE
    if not path.is_file():
        what = "there is no such folder" if not path.parent.exists() else f"it has no {CONFIG_FILE}"
        advice = "A bundle is a folder that clip_core.save wrote."
        if ":" in str(folder):
            advice += " Published names such as ViT-B-32:openai need clip-hub: clip_hub.load."
        raise ConfigError(f"{folder} is not a bundle: {what}. {advice}")
    try:
        content: JSON = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or not isinstance(content.get("model"), dict):
        found = content.get("schema") if isinstance(content, dict) else type(content).__name__
        raise ConfigError(
            f"{path} has schema {found!r}; this clip-core reads schema {SCHEMA} with a key 'model'. "
            "A newer bundle needs a newer clip-core."
        )
    strange = sorted(set(content) - {"schema", "model"})
    if strange:
        raise ConfigError(f"{path} has the unknown key {strange[0]!r}; allowed: schema, model.")
    try:
        return ClipConfig.from_json(content["model"])
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _find_weights(name: str, config: ClipConfig, pretrained: str | os.PathLike[str] | None) -> Path | None:
    # An empty string is how open_clip's commands say "none".
    if pretrained is None or pretrained == "":
        return None
    path = Path(pretrained)
    if path.is_file():
        return path
    if path.is_dir():
        held = read_config(path)
        if held != config:
            raise CheckpointMismatch(
                f"The bundle {path} holds another model than {name!r}: {_difference(config, held)}. "
                f"Load it as it is with clip_core.load({str(path)!r})."
            )
        return path / WEIGHTS_FILE
    if path.suffix in SUFFIXES or len(path.parts) > 1:
        raise ConfigError(f"There is no file or folder {str(pretrained)!r}; give the path of weights or of a bundle.")
    raise ConfigError(
        f"pretrained={str(pretrained)!r} is neither a file nor a folder. clip-core opens local weights only; for a "
        "published tag install clip-hub and call clip_hub.create_model with the same arguments."
    )


def _difference(asked: ClipConfig, held: ClipConfig) -> str:
    """The fields in which two configurations differ, as "text.activation is 'quick_gelu' there, 'gelu' asked"."""

    def flat(value: object, prefix: str) -> dict[str, object]:
        if isinstance(value, dict):
            return {k: v for key, item in value.items() for k, v in flat(item, f"{prefix}{key}.").items()}
        return {prefix.rstrip("."): value}

    ours, theirs = flat(asked.to_json(), ""), flat(held.to_json(), "")
    return ", ".join(
        f"{key} is {theirs.get(key)!r} there, {ours.get(key)!r} asked"
        for key in {**ours, **theirs}
        if ours.get(key) != theirs.get(key)
    )
