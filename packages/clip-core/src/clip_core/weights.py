"""Reading a state dict from a file without ever running what is in it, and putting it into a model strictly.

Files: `.safetensors`, and torch's `.pt`, `.pth`, `.bin` through `weights_only=True`. The keys are brought to
OpenCLIP's layout here only as far as wrappers go (`state_dict` inside, `module.` before every key).
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from clip_core.errors import CheckpointMismatch

__all__ = ["SUFFIXES", "load_weights", "read_weights"]

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
"""Endings of the files that `read_weights` reads."""

_WRAPPERS = ("state_dict", "model")
_SHOWN = 5


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of `path` by name, memory-mapped where the format allows it.

    Raises:
        CheckpointMismatch: the file is missing, damaged, needs code to be run, or holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointMismatch(f"There is no weights file {path}.")
    if path.suffix == ".safetensors":
        tensors = _read_safetensors(path)
    elif path.suffix in SUFFIXES:
        tensors = _read_torch(path)
    else:
        raise CheckpointMismatch(f"Cannot tell the format of {path}; allowed: {', '.join(SUFFIXES)}.")
    if tensors and all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], source: str | os.PathLike[str]) -> None:
    """Make `tensors` the parameters of `model`, which may be on the meta device; their storage is taken over.

    Raises:
        CheckpointMismatch: keys or shapes differ; names `source` and what differs, and leaves the model as it was.
    """
    wanted = model.state_dict()
    missing = [key for key in wanted if key not in tensors]
    unexpected = [key for key in tensors if key not in wanted]
    misshapen = [
        f"{key} is {tuple(tensors[key].shape)}, the model has {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in tensors and tensors[key].shape != value.shape
    ]
    mistyped = [
        f"{key} is {tensors[key].dtype}" for key in wanted if key in tensors and not tensors[key].is_floating_point()
    ]
    problems = [
        f"{title}: {', '.join(items[:_SHOWN])}{f' and {len(items) - _SHOWN} more' if len(items) > _SHOWN else ''}"
        for title, items in (
            ("shapes differ", misshapen),
            ("not floating point", mistyped),
            ("missing", missing),
            ("unexpected", unexpected),
        )
        if items
    ]
    if problems:
        raise CheckpointMismatch(
            f"The weights in {os.fspath(source)} do not fit the model ({'; '.join(problems)}). "
            "Load them with the configuration that they were saved with."
        )
    model.load_state_dict(dict(tensors), strict=True, assign=True)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    import safetensors
    import safetensors.torch

    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointMismatch(
            f"Cannot read {path} as safetensors: {error}. The file is damaged or cut short."
        ) from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        # torch maps its zip files into memory; older ones it has to read.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise CheckpointMismatch(
            f"{path} is not a file of plain tensors and was not opened further, since that could run code: "
            f"{str(error).splitlines()[0]} Ask its author for safetensors."
        ) from error
    except Exception as error:
        # The restricted unpickler raises whatever a damaged file makes it trip over (KeyError, IndexError ...).
        reason = str(error).split("\n")[0]
        raise CheckpointMismatch(
            f"Cannot read {path} as a torch checkpoint ({type(error).__name__}: {reason})."
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointMismatch(f"{path} holds no state dict of tensors; allowed: one, bare or under 'state_dict'.")
    return content
