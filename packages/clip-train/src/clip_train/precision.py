"""What `--precision` and `--device` mean on this machine, as contexts and checked devices."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from clip_core.errors import ConfigError

__all__ = ["autocast", "resolve_device"]


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward pass: bfloat16 matrix products for "amp_bf16", nothing for "fp32"."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def resolve_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the GPU where there is one.

    Raises `ConfigError` for a device that does not exist here: a run never moves to another one silently.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device is {name!r}; allowed: auto, cpu, cuda, cuda:0, cuda:1 ...")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ConfigError(f"device is {name!r}, but torch sees {count} CUDA devices here. Use --device cpu or auto.")
    return device
