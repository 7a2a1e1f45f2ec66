"""The optimiser: AdamW, NAdamW or one of timm, updates that are applied or not at all, and the logit scale's bounds.

What this room leaves out: which parameters are treated alike (`param_groups`), and the learning rate over time
(`schedule`).
"""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from torch import Tensor, nn

from clip_core import Clip
from clip_core.errors import ConfigError, nearest
from clip_train.config import OptimConfig
from clip_train.parallel import local_parts
from clip_train.param_groups import parameter_groups

__all__ = ["build_optimizer", "clamp_logit_scale", "set_learning_rate", "take_step"]

_log = logging.getLogger(__name__)

# Radford et al. (2021): logits are scaled by at most 100, "to prevent training instability".
_LOGIT_SCALE_MAX = math.log(100)


def build_optimizer(model: Clip, config: OptimConfig) -> torch.optim.Optimizer:
    """The optimiser that `config` asks for, over what is trainable.

    Raises:
        ConfigError: nothing is trainable; timm has no optimiser of this name; it does not take one of the arguments.
    """
    groups = parameter_groups(model, config)
    if not groups:
        raise ConfigError("Every parameter is locked, so there is nothing to train.")
    given: dict[str, Any] = {}
    if config.beta1 is not None:
        given["betas"] = (config.beta1, config.beta2)
    for name in ("eps", "momentum"):
        if getattr(config, name) is not None:
            given[name] = getattr(config, name)
    if config.opt == "adamw":
        # Loshchilov and Hutter (2019).
        given["fused"] = True
    elif config.opt == "nadamw":
        # Dozat (2016), with the decay of AdamW.
        given["decoupled_weight_decay"] = True
    given.update(config.opt_kwargs)
    try:
        optimizer = _create(groups, config, given)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        said = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise ConfigError(f"--opt {config.opt} cannot be made with {said or 'its defaults'}: {error}.") from error
    set_learning_rate(optimizer, config.lr)
    _log.info(
        "%s, %d groups of parameters: %s",
        type(optimizer).__name__,
        len(optimizer.param_groups),
        "; ".join(map(_describe, optimizer.param_groups)),
    )
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Set the learning rate of every group: `value`, or the share of it that is the group's `lr_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = value * group.get("lr_scale", 1.0)


def take_step(optimizer: torch.optim.Optimizer, admitted: Tensor) -> None:
    """Update the weights where `admitted`, a boolean scalar, is true.

    Where it is false neither the weights change nor anything that the optimiser remembers. A fused Adam looks at it
    itself, on the device. For another optimiser, and for weights on another device, the program waits and looks.
    """
    if _heeds_found_inf(optimizer):
        # The way that torch's loss scaler tells an optimiser of an overflow.
        optimizer.found_inf = _found_inf(optimizer, admitted)  # type: ignore[attr-defined]
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


def _heeds_found_inf(optimizer: torch.optim.Optimizer) -> bool:
    # torch's fused SGD and Adagrad take it, too, and still keep a buffer that nothing was written to.
    return type(optimizer) in (torch.optim.Adam, torch.optim.AdamW) and all(
        group.get("fused") for group in optimizer.param_groups
    )


def _found_inf(optimizer: torch.optim.Optimizer, admitted: Tensor) -> Tensor:
    """1 or 0, where the optimiser may read it; it takes it to further devices itself, without waiting.

    That is right towards a GPU. Towards the CPU (--fsdp-offload-cpu) it would read what has not arrived yet.
    """
    found = (~admitted).float()
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    devices = {part.device for part in local_parts(parameters)} - {admitted.device}
    return found.to(min(devices, key=lambda device: device.type)) if devices else found


def _create(groups: list[dict[str, Any]], config: OptimConfig, given: dict[str, Any]) -> torch.optim.Optimizer:
    if config.opt == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.wd, **given)
    if config.opt == "nadamw":
        return torch.optim.NAdam(groups, lr=config.lr, weight_decay=config.wd, **given)
    from timm.optim import create_optimizer_v2, list_optimizers  # type: ignore[attr-defined]

    name = config.opt.removeprefix("timm/").lower()
    wrapped, known = name.removeprefix("lookahead_"), [str(one) for one in list_optimizers()]
    if wrapped not in known:
        close = nearest(wrapped, known)
        hint = f"did you mean {', '.join(f'timm/{one}' for one in close)}?" if close else "timm.optim lists them"
        raise ConfigError(f"timm has no optimiser {name!r}; {hint}")
    made: torch.optim.Optimizer = create_optimizer_v2(groups, name, lr=config.lr, weight_decay=config.wd, **given)
    return made


def _describe(group: dict[str, Any]) -> str:
    numbers = sum(parameter.numel() for parameter in group["params"])
    share = f", lr x {group['lr_scale']:.3g}" if "lr_scale" in group else ""
    fallback = ", AdamW" if group.get("use_fallback") else ""
    return f"{numbers:,} numbers, weight decay {group['weight_decay']:g}{share}{fallback}"
