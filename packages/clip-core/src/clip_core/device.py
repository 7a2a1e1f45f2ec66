"""From the name of a device to one that this machine has, or an error before anything is computed."""

from __future__ import annotations

import torch

from clip_core.errors import ConfigError

__all__ = ["resolve_device"]


def resolve_device(device: str | torch.device, *, meta: bool = False) -> torch.device:
    """The device called `device`; "auto" is the first GPU where torch sees one, else the CPU.

    `meta` allows torch's device without memory, on which nothing can be computed. Raises `ConfigError` for a device
    that does not exist here: nothing moves to another one silently.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found: torch.device | None = torch.device(device)
    except (RuntimeError, TypeError):
        found = None
    if found is None or found.type not in ("cpu", "cuda", "mps", "meta") or (found.type == "meta" and not meta):
        raise ConfigError(f"device is {device!r}; allowed: auto, cpu, cuda, cuda:0, cuda:1 ..., mps.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found.type == "cuda" and (found.index or 0) >= count:
        raise ConfigError(f"device is {str(device)!r}, but torch sees {count} CUDA devices here; use 'cpu' or 'auto'.")
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"device is {str(device)!r}, but torch sees no Metal GPU here; use 'cpu' or 'auto'.")
    return found
