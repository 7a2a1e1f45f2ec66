"""The optimiser: AdamW with open_clip's two groups, and the bounds of the logit scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from clip_train.config import OptimConfig

__all__ = ["build_optimizer", "clamp_logit_scale", "has_weight_decay", "set_learning_rate", "take_step"]

# Radford et al. (2021): logits are scaled by at most 100, "to prevent training instability".
_LOGIT_SCALE_MAX = math.log(100)


def has_weight_decay(name: str, parameter: nn.Parameter) -> bool:
    """Whether open_clip decays this parameter: matrices and larger, unless the name says norm, bias or logit scale."""
    return parameter.ndim >= 2 and not any(part in name for part in ("bn", "ln", "bias", "logit_scale"))


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) over what is trainable: group 0 without decay, group 1 with `config.wd`."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for n, p in named if not has_weight_decay(n, p)], "weight_decay": 0.0},
            {"params": [p for n, p in named if has_weight_decay(n, p)], "weight_decay": config.wd},
        ],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = value


def take_step(optimizer: torch.optim.Optimizer, admitted: Tensor) -> None:
    """Update the weights where `admitted`, a boolean scalar on their device, is true, and leave them alone elsewhere.

    A fused optimiser looks at it itself, on the device. For another one the program waits and looks.
    """
    if optimizer.defaults.get("fused"):
        # The way that torch's loss scaler tells an optimiser of an overflow.
        optimizer.found_inf = (~admitted).float()  # type: ignore[attr-defined]
        try:
            optimizer.step()
        finally:
            del optimizer.found_inf  # type: ignore[attr-defined]
    elif bool(admitted):
        optimizer.step()


@torch.no_grad()
def clamp_logit_scale(logit_scale: nn.Parameter) -> None:
    """Bring the learned scale (in log space) back into [0, ln 100], in place."""
    logit_scale.clamp_(0, _LOGIT_SCALE_MAX)
