"""The bundle on disk: a folder with `clip_config.json` and `model.safetensors` that loads with no network.

`clip_config.json` holds a `ClipConfig` and the number of its schema; the weights must fit it exactly. The files of a
tokenizer other than CLIP's own lie beside them, byte for byte as they were read.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from pathlib import Path

import torch

from clip_core.building import Precision, build
from clip_core.bundle import Bundle
from clip_core.config import ClipConfig
from clip_core.errors import ConfigError, StorageError
from clip_core.schema import JSON
from clip_core.tokenizer import TOKENIZER_FILES, tokenizer_files

__all__ = ["CONFIG_FILE", "WEIGHTS_FILE", "load", "read_config", "save"]

CONFIG_FILE = "clip_config.json"
WEIGHTS_FILE = "model.safetensors"
SCHEMA = 1


def save(bundle: Bundle, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write `bundle` as a folder that `load` reads anywhere; the folder appears whole or not at all.

    Args:
        bundle: what to write; parameters keep their dtype.
        folder: where; its parents are made.
        overwrite: replace a bundle that is already there. A folder that holds anything else is never replaced.

    Raises:
        ConfigError: the folder exists and is neither empty nor a bundle that may be replaced, or the model is on the
            meta device and has no values, or the files of the tokenizer are gone.
        StorageError: it cannot be written there, or the disk is full.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if bundle.model.logit_scale.is_meta:
        raise ConfigError("A model on the meta device has no weights to save; create it on another device.")
    target = Path(folder).resolve()
    held = {path.name for path in target.iterdir()} if target.is_dir() else set()
    if target.is_file() or (held and not overwrite):
        raise ConfigError(f"{folder} already exists; choose another folder or pass overwrite=True to replace a bundle.")
    if Path.cwd().is_relative_to(target):
        raise ConfigError(f"{folder} is the current folder or holds it; choose a folder inside it.")
    if held - {CONFIG_FILE, WEIGHTS_FILE} - TOKENIZER_FILES or (held and CONFIG_FILE not in held):
        raise ConfigError(f"{folder} holds more than a bundle ({min(held)} ...) and is not replaced; choose another.")
    vocabulary = tokenizer_files(bundle.tokenizer)
    # Everything is written beside the target first: a kill or a full disk never leaves half a bundle under its name.
    scratch = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    old = scratch.with_suffix(".old")
    try:
        scratch.mkdir(parents=True)
        content = {"schema": SCHEMA, "model": bundle.config.to_json()}
        (scratch / CONFIG_FILE).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        tensors = {key: value.detach().contiguous() for key, value in bundle.model.state_dict().items()}
        save_file(tensors, scratch / WEIGHTS_FILE, metadata={"format": "pt"})
        for path in vocabulary:
            shutil.copyfile(path, scratch / path.name)
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
    return Bundle.of(build(config, folder / WEIGHTS_FILE, precision=precision, device=device), folder)


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
