"""Reading a state dict from a file without ever running what is in it, and putting it into a model strictly.

Files: `.safetensors`, and torch's `.pt`, `.pth`, `.bin` through `weights_only=True`. What training and compiling wrap
around a state dict is taken off here: dicts around it (`state_dict`, `model`), a moving average beside it, `module.`
and `_orig_mod.` in the keys. The keys themselves are translated in `convert`.
"""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from clip_core.errors import CheckpointMismatch, listed

__all__ = ["SUFFIXES", "load_weights", "read_weights"]

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
"""Endings of the files that `read_weights` reads."""

_PLAIN = ("state_dict", "model", "module")
# As timm and training scripts call the exponential moving average of the weights.
_AVERAGED = ("state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "ema")


def read_weights(path: str | os.PathLike[str], *, ema: bool | None = None) -> dict[str, Tensor]:
    """The tensors of `path` by name, memory-mapped where the format allows it.

    Changing mapped tensors does not change the file. Changing the file in place would change them, or end the process:
    replace it as a whole (`os.replace`), as `storage.save` does.

    Args:
        path: the file.
        ema: for a file that holds the trained weights and their moving average: True takes the average, False the
            others. None takes what is there, and refuses a file that holds both.

    Raises:
        CheckpointMismatch: the file is missing, damaged, needs code to be run, holds no tensors, or holds both kinds
            of weights and `ema` is None, or not the kind that was asked for.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointMismatch(f"There is no weights file {path}.")
    if path.suffix == ".safetensors":
        tensors = _read_safetensors(path)
        if ema:
            raise CheckpointMismatch(f"{path} holds no moving average beside its weights; allowed: ema=False or None.")
    elif path.suffix in SUFFIXES:
        tensors = _read_torch(path, ema)
    else:
        raise CheckpointMismatch(f"Cannot tell the format of {path}; allowed: {', '.join(SUFFIXES)}.")
    return _unwrapped(tensors)


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` without what DistributedDataParallel, torch.compile and AveragedModel add to the keys."""
    tensors = {key.replace("_orig_mod.", ""): value for key, value in tensors.items() if key != "n_averaged"}
    while tensors and all(key.startswith("module.") for key in tensors):
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
        f"{key} is {tensors[key].dtype}, the model has {value.dtype}"
        for key, value in wanted.items()
        if key in tensors and tensors[key].is_floating_point() != value.is_floating_point()
    ]
    problems = [
        f"{title}: {listed(items)}"
        for title, items in (
            ("shapes differ", misshapen),
            ("of another kind of number", mistyped),
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


def _read_torch(path: Path, ema: bool | None) -> dict[str, Tensor]:
    if _is_torchscript(path):
        raise CheckpointMismatch(
            f"{path} is a TorchScript archive: a program with its weights, which is not run here. Where you trust it, "
            "save its weights alone: torch.save(torch.jit.load(path, map_location='cpu').state_dict(), 'weights.pt')."
        )
    try:
        # torch maps its zip files into memory; older ones it has to read.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise CheckpointMismatch(
            f"{path} is not a file of plain tensors and was not opened further, since that could run code"
            f"{_wanted(error)}. Ask its author for safetensors."
        ) from error
    except Exception as error:
        # The restricted unpickler raises whatever a damaged file makes it trip over (KeyError, IndexError ...).
        reason = str(error).split("\n")[0]
        raise CheckpointMismatch(
            f"Cannot read {path} as a torch checkpoint ({type(error).__name__}: {reason}). The file is damaged or cut "
            "short, or no checkpoint."
        ) from error
    found = _state_dict(content, path, ema)
    if not isinstance(found, dict) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise CheckpointMismatch(f"{path} holds no state dict of tensors; allowed: one, bare or under 'state_dict'.")
    return found


def _wanted(error: pickle.UnpicklingError) -> str:
    """What the file asks for beside tensors, where torch says it; its advice to open the file all the same is cut."""
    found = re.search(r"GLOBAL (\w[\w. ]*\w)", str(error))
    return f": it asks for {found[1].split()[0]}" if found else ""


def _state_dict(content: object, path: Path, ema: bool | None) -> object:
    """What is inside the dicts around a state dict, the moving average or the trained weights."""
    averaged, plain = _first(content, _AVERAGED), _first(content, _PLAIN)
    if averaged and plain and ema is None:
        raise CheckpointMismatch(
            f"{path} holds the trained weights ({plain!r}) and their moving average ({averaged!r}); pass ema=True for "
            "the average or ema=False for the others."
        )
    if (ema and not averaged) or (ema is False and averaged and not plain):
        wanted = "a moving average" if ema else "weights beside the moving average"
        raise CheckpointMismatch(f"{path} does not hold {wanted}; allowed: ema={not ema} or None.")
    key = averaged if ema or not plain else plain
    while key is not None and isinstance(content, dict):
        content = content[key]
        key = _first(content, _PLAIN)
    return content


def _first(content: object, keys: tuple[str, ...]) -> str | None:
    """The first of `keys` under which `content` holds a dict."""
    return next((key for key in keys if isinstance(content, dict) and isinstance(content.get(key), dict)), None)


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        # Everything in torch's archives lies in one folder; only a program has constants and code there.
        return any(name.partition("/")[2] == "constants.pkl" for name in archive.namelist())
