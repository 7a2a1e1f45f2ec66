"""Which implementation an operation of this room runs with, and why: Triton's programs, or plain torch.

A choice is made where a public function is called, from shapes, dtypes and the device alone, and is handed to the
backward pass. No environment variable has a say; `use_backend` does. What is not measured on a kind of device is not
chosen there by itself.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from clip_core.errors import ConfigError

__all__ = ["Backend", "forced_backend", "loss_backend", "use_backend", "why_no_triton"]

Backend = Literal["triton", "torch"]

_OLDEST_TRITON = (3, 6)
_OLDEST_CAPABILITY = (8, 0)
_forced: Backend | None = None


@contextlib.contextmanager
def use_backend(backend: Backend) -> Iterator[None]:
    """Run every operation of `clip_core.kernels` that is called inside with `backend`, in all threads.

    Raises:
        ConfigError: another name; or, where an operation is called, "triton" for what it has no program for.
    """
    if backend not in ("triton", "torch"):
        raise ConfigError(f"backend is {backend!r}; allowed: 'triton' or 'torch'.")
    global _forced
    before, _forced = _forced, backend
    try:
        yield
    finally:
        _forced = before


def forced_backend() -> Backend | None:
    """What `use_backend` says, or None outside of it."""
    return _forced


def why_no_triton(device: torch.device) -> str | None:
    """Why Triton's programs cannot run on tensors of `device`, as the end of a sentence, or None where they can.

    On a CPU they run in Triton's interpreter, which must have been chosen before Triton was imported.
    """
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    version = importlib.metadata.version("triton")
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_TRITON:
        return f"triton {version} is older than {'.'.join(map(str, _OLDEST_TRITON))}"
    if device.type == "cuda":
        if torch.version.hip is not None:
            return "the programs are written for NVIDIA's devices"
        capability = torch.cuda.get_device_capability(device)
        if capability < _OLDEST_CAPABILITY:
            return f"compute capability {capability[0]}.{capability[1]} is below 8.0"
        return None
    if device.type == "cpu":
        import triton

        return None if triton.knobs.runtime.interpret else "the tensors are on a CPU and TRITON_INTERPRET=1 is not set"
    return f"there are no programs for {device.type!r}"


def loss_backend(features: Tensor) -> Backend:
    """For the contrastive losses of `features`: on a CUDA device Triton where it can run, else torch.

    Raises `ConfigError` where `use_backend` asks for Triton and it cannot run.
    """
    if _forced == "torch" or (_forced is None and features.device.type != "cuda"):
        return "torch"
    reason = "features of float64 have none" if features.dtype == torch.float64 else why_no_triton(features.device)
    if reason is None:
        return "triton"
    if _forced == "triton":
        raise ConfigError(f"use_backend('triton'): {reason}; allowed here: 'torch'.")
    return "torch"
