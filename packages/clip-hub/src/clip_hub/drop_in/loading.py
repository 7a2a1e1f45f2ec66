"""Weights into a model that exists already, as OpenCLIP's `load_checkpoint` and `pretrained_image_path` do."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip_core import Clip
from clip_core.config import ClipConfig
from clip_core.convert.checkpoint import Checkpoint
from clip_core.convert.reading import open_file
from clip_core.errors import CheckpointMismatch, ConfigError
from clip_core.weights import SUFFIXES, read_weights

__all__ = ["fill_tower", "load_checkpoint", "load_state_dict", "with_logit_bias"]


def load_checkpoint(
    model: Clip,
    checkpoint_path: str | os.PathLike[str],
    strict: bool = True,
    weights_only: bool = True,
    device: str | torch.device = "cpu",
) -> Any:
    """Copy the weights of a file into `model`, in the dtype and on the device it has.

    Args:
        model: one of `create_model`.
        checkpoint_path: weights of OpenCLIP, OpenAI, big_vision (`.npz`) or PaddleNLP (`.pdparams`); positions are
            interpolated to the model's sizes.
        strict: raise where names differ.
        weights_only: True; no file runs code.
        device: not used; the file is read where it is.

    Returns:
        The names that are missing and those that are unexpected, as torch's `load_state_dict`; none with `strict`.

    Raises:
        CheckpointMismatch: the file cannot be read, or does not fit; the model may then be changed in part.
    """
    _require_weights_only(weights_only)
    held = with_logit_bias(open_file(checkpoint_path))
    tensors = model.adapt_weights(held.tensors(model.config))
    try:
        return model.load_state_dict(tensors, strict=strict)
    except RuntimeError as error:
        found = "; ".join(line.strip(" .\t") for line in str(error).splitlines()[1:])
        raise CheckpointMismatch(f"The weights in {held.path} do not fit the model: {found}.") from error


def load_state_dict(
    checkpoint_path: str | os.PathLike[str], device: str | torch.device = "cpu", weights_only: bool = True
) -> dict[str, Tensor]:
    """The tensors of a file by name, without what training wraps around them.

    Raises:
        CheckpointMismatch: the file cannot be read.
    """
    _require_weights_only(weights_only)
    return {name: value.to(device) for name, value in read_weights(checkpoint_path).items()}


def with_logit_bias(held: Checkpoint) -> Checkpoint:
    """`held` with a bias of 0 where the model is to have one and its weights do not, as for SigLIP's loss on CLIP's."""

    def tensors(config: ClipConfig) -> dict[str, Tensor]:
        found = held.tensors(config)
        if config.logit_bias is not None and "logit_bias" not in found and "logit_scale" in found:
            found["logit_bias"] = torch.zeros_like(found["logit_scale"])
        return found

    return dataclasses.replace(held, tensors=tensors)


def fill_tower(model: Clip, tower: str, path: Path) -> bool:
    """Copy a file's weights into one tower of `model`, "visual" or "text"; False where their names are not its own.

    Raises:
        CheckpointMismatch: the file cannot be read, or its shapes do not fit.
        ConfigError: there is no such file.
    """
    if path.is_dir():
        return False
    if not path.is_file() or path.suffix not in SUFFIXES:
        raise ConfigError(f"{path} is no file of weights; allowed: one that ends with {', '.join(SUFFIXES)}.")
    tensors = read_weights(path)
    prefix = "visual." if tower == "visual" else model.text_prefix
    own = {name: value for name, value in model.state_dict().items() if name.startswith(prefix)}
    if not prefix:
        own = {name: value for name, value in own.items() if not name.startswith(("visual.", "logit_"))}
    if {f"{prefix}{name}" for name in tensors} != set(own):
        return False
    for name, value in tensors.items():
        if own[f"{prefix}{name}"].shape != value.shape:
            raise CheckpointMismatch(
                f"{path}: {name} is {tuple(value.shape)}, the model has {tuple(own[f'{prefix}{name}'].shape)}."
            )
    with torch.no_grad():
        for name, value in tensors.items():
            own[f"{prefix}{name}"].copy_(value)
    return True


def _require_weights_only(weights_only: bool) -> None:
    if not weights_only:
        raise ConfigError("weights_only is False; allowed: True, so that no file runs code.")
