"""Models by published name: the calls of clip-core, with tags.

A tag brings its own preprocessing and activation. Local files and folders work as in clip-core.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch

import clip_core
from clip_core import Bundle, Clip, ConfigError, UnknownModel, list_models
from clip_core.building import Precision, build
from clip_core.device import resolve_device
from clip_core.preprocess import AugmentConfig, Transform, build_transform
from clip_core.presets import split_name
from clip_core.weights import SUFFIXES
from clip_hub.download import fetch
from clip_hub.registry import find, find_name

__all__ = ["create", "create_model", "create_model_and_transforms", "load"]

_log = logging.getLogger(__name__)


def create_model(
    name: str,
    pretrained: str | os.PathLike[str] | None = None,
    precision: Precision = "fp32",
    device: str | torch.device = "cpu",
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> Clip:
    """The architecture `name` in evaluation mode with published, local or fresh weights.

    Args:
        name: one of `list_models()`.
        pretrained: a tag of `list_pretrained()`, a weights file, a bundle folder, or None.
        precision: dtype of the parameters: "fp32", "bf16" or "fp16".
        device: "meta" builds the layout without memory and fetches nothing.
        cache_dir: where downloads are kept; default huggingface_hub's cache.
        token: for private repositories; default the one of `hf auth login`.

    Raises:
        UnknownModel: no such architecture or tag; the nearest are listed.
        CheckpointMismatch: the weights do not fit, or were trained with another activation than the name asks for.
        DownloadError: the weights could not be fetched.
    """
    if pretrained is None or pretrained == "":
        return clip_core.create_model(name, precision=precision, device=device)
    try:
        row = find(name, os.fspath(pretrained))
    except UnknownModel:
        path = Path(pretrained)
        # What looks like a path is clip-core's affair, which also says when it is not there.
        if path.exists() or path.suffix in SUFFIXES or len(path.parts) > 1:
            return clip_core.create_model(name, pretrained, precision=precision, device=device)
        raise
    config = row.config()
    if config != clip_core.get_config(name):
        _log.info("%s: %s brings its own activation (%s) or preprocessing", name, row.tag, row.activation)
    if resolve_device(device, meta=True).type == "meta":
        return build(config, precision=precision, device=device)
    path = fetch(row.repo, row.files, revision=row.revision, cache_dir=cache_dir, token=token)
    return build(config, path, precision=precision, device=device)


def create(
    name: str,
    pretrained: str | os.PathLike[str] | None = None,
    precision: Precision = "fp32",
    device: str | torch.device = "cpu",
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> Bundle:
    """As `create_model`, with the transform and the tokenizer beside the model."""
    return Bundle.of(
        create_model(name, pretrained, precision=precision, device=device, cache_dir=cache_dir, token=token)
    )


def create_model_and_transforms(
    name: str,
    pretrained: str | os.PathLike[str] | None = None,
    precision: Precision = "fp32",
    device: str | torch.device = "cpu",
    *,
    augment: AugmentConfig | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> tuple[Clip, Transform, Transform]:
    """As `create_model`, with the training transform and the evaluation transform: (model, train, eval)."""
    model = create_model(name, pretrained, precision=precision, device=device, cache_dir=cache_dir, token=token)
    preprocess = model.config.preprocess
    return model, build_transform(preprocess, train=True, augment=augment), build_transform(preprocess)


def load(
    name: str | os.PathLike[str],
    *,
    precision: Precision = "fp32",
    device: str | torch.device = "cpu",
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> Bundle:
    """The bundle that `name` means: a bundle folder, or "model:tag" as in "ViT-B-32:laion2b_s34b_b79k".

    After the colon a weights file or a bundle folder is allowed too.

    Raises:
        UnknownModel: `name` is neither, or its model or tag is unknown; the nearest names are listed.
        ConfigError, CheckpointMismatch, DownloadError: as `create_model` and `clip_core.load`.
    """
    text = os.fspath(name)
    if text and Path(text).is_dir():
        return clip_core.load(text, precision=precision, device=device)
    model, _, tag = text.partition(":")
    if split_name(model)[0] not in list_models():
        if Path(text).is_file():
            raise ConfigError(f"{text!r} is a file; say which architecture it is for, as in 'ViT-B-32:{text}'.")
        if os.sep in text or text.startswith("."):
            raise ConfigError(f"There is no bundle folder {text!r}; give the path of one, or a name as model:tag.")
    if not tag:
        find_name(text)  # raises, and names the tags of the model
    return create(model, tag, precision=precision, device=device, cache_dir=cache_dir, token=token)
