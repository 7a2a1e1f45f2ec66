"""In which precision the towers compute: a choice that is made aloud and recorded, because it changes the features.

Whatever it is, features leave a tower in float32 and are normalised there; scores are never computed in less.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal, get_args

import torch

from clip_core.errors import ConfigError
from clip_core.model import Clip

__all__ = ["Precision", "compute_context", "default_precision", "resolve_precision"]

Precision = Literal["fp32", "amp_bf16", "amp", "pure"]
"""fp32: float32 throughout. amp_bf16, amp: matrix products in bfloat16, in float16 (CUDA; what CLIP_benchmark does
unless it is told otherwise). pure: in whatever the weights were loaded as."""


def default_precision(model: Clip) -> Precision:
    """fp32, or pure for weights that were loaded as something shorter."""
    return "fp32" if model.dtype == torch.float32 else "pure"


def resolve_precision(precision: str | None, model: Clip) -> Precision:
    """`precision`, or the default for `model` where it is None.

    Raises:
        ConfigError: it is no precision, or not one that these weights or this device can have.
    """
    if precision is None:
        return default_precision(model)
    device = model.logit_scale.device
    for known in get_args(Precision):
        if precision == known:
            break
    else:
        raise ConfigError(f"precision is {precision!r}; allowed: {', '.join(get_args(Precision))}.")
    if precision == "fp32" and model.dtype != torch.float32:
        raise ConfigError(
            f"precision is 'fp32', but the weights were loaded as {str(model.dtype).removeprefix('torch.')}. Load them "
            "in fp32, or choose 'pure' to compute in what they are."
        )
    if precision == "amp" and device.type != "cuda":
        raise ConfigError(f"precision is 'amp' (float16) on {device}; allowed there: fp32, amp_bf16, pure.")
    return known  # type: ignore[no-any-return]


def compute_context(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward pass. It switches an autocast around it off where `precision` has none."""
    if precision in ("fp32", "pure"):
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype=torch.bfloat16 if precision == "amp_bf16" else torch.float16)
