"""What `--precision` means: the context of a forward pass, the dtype of the weights, and the scaling of the loss.

What this room leaves out: who skips a step (`guard`), and the update itself (`optim`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from clip_core.errors import ConfigError

__all__ = ["LossScaler", "autocast", "lower_weights", "multiply", "require_possible"]

_log = logging.getLogger(__name__)

_MIXED = {"amp": torch.float16, "amp_bf16": torch.bfloat16}
_LOW = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "pure_bf16": torch.bfloat16,
    "pure_fp16": torch.float16,
}
_NORMS = (
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.modules.batchnorm._BatchNorm,
)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward pass: for "amp" and "amp_bf16" matrix products in float16 or bfloat16, else nothing."""
    if precision in _MIXED:
        return torch.autocast(device.type, dtype=_MIXED[precision])
    return nullcontext()


def lower_weights(model: nn.Module, precision: str) -> None:
    """Take the weights to the dtype of `precision`: no change for fp32 and for mixed precision.

    "pure_bf16" and "pure_fp16" take all of them but the scale and the bias of the logits. "bf16" and "fp16" leave
    norms in float32, too, which compute in it whatever comes in (OpenAI's way). open_clip also leaves the tables of
    tokens and positions there; here they are in the low precision.
    """
    if precision not in _LOW:
        return
    kept = {name for name, _ in model.named_parameters() if name in ("logit_scale", "logit_bias")}
    if not precision.startswith("pure_"):
        for path, module in model.named_modules():
            if isinstance(module, _NORMS):
                kept |= {f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)}
                kept |= {f"{path}.{name}" for name, _ in module.named_buffers(recurse=False)}
                module.register_forward_pre_hook(_widen)
                module.register_forward_hook(_narrow(_LOW[precision]))
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name not in kept and tensor.is_floating_point():
            tensor.data = tensor.data.to(_LOW[precision])
    if precision in ("fp16", "pure_fp16"):
        _log.warning(
            "%s trains in float16 without scaling the loss, and small gradients are lost; amp and amp_bf16 lose none",
            precision,
        )


def require_possible(precision: str, device: torch.device) -> None:
    """Raise `ConfigError` where `device` has no arithmetic for `precision`, after trying it on a few numbers."""
    dtype = _MIXED.get(precision) or _LOW.get(precision)
    if dtype is None:
        return
    try:
        left = torch.ones(2, 3, 4, 4, dtype=dtype, device=device, requires_grad=True)
        weight = torch.ones(2, 3, 2, 2, dtype=dtype, device=device, requires_grad=True)
        out = nn.functional.conv2d(left, weight).flatten(1)
        (out @ out.T).sum().backward()  # type: ignore[no-untyped-call]
    except (RuntimeError, NotImplementedError) as error:
        raise ConfigError(
            f"--precision {precision} computes in {dtype}, which {device} cannot do with this torch: "
            f"{str(error).splitlines()[0]}. Use --precision amp_bf16 or fp32."
        ) from error


@torch.no_grad()
def multiply(tensors: Iterable[Tensor], factor: Tensor) -> None:
    """Multiply each of `tensors` by the scalar `factor`, in place; they may be on several devices (--fsdp-offload-cpu).

    Where one of them is on a CPU and the factor is not, the program waits for the factor.
    """
    by_device: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        by_device.setdefault(tensor.device, []).append(tensor)
    for device, there in by_device.items():
        torch._foreach_mul_(there, factor.to(device))


class LossScaler:
    """Multiplies the loss, so that small gradients are not lost in float16, and takes the factor out of the gradient.

    The factor doubles after so many steps without an overflow and is halved by one (Micikevicius et al. 2018), as that
    of `torch.amp.GradScaler`, whose numbers and `state_dict` it has. Everything is decided on the device.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        initial: float = 65536.0,
        growth: float = 2.0,
        backoff: float = 0.5,
        interval: int = 2000,
    ) -> None:
        self._factor = torch.tensor(initial, device=device)
        self._steps = torch.zeros((), dtype=torch.int32, device=device)
        self._growth, self._backoff, self._interval = growth, backoff, interval

    @property
    def factor(self) -> Tensor:
        """The factor of the next loss, a float32 scalar."""
        return self._factor

    def scale(self, loss: Tensor) -> Tensor:
        """The loss to take the gradient of."""
        return loss * self._factor

    def unscale(self, gradients: Sequence[Tensor]) -> None:
        """Take the factor out of `gradients`, in place; what had overflowed stays infinite or NaN."""
        # A power of two, so nothing is rounded.
        multiply(gradients, self._factor.reciprocal())

    def update(self, overflowed: Tensor) -> None:
        """Choose the next factor; `overflowed` is a boolean scalar on the device: the gradient was not finite."""
        grown = self._steps + 1 >= self._interval
        larger = self._factor * self._growth
        larger = torch.where(torch.isfinite(larger), larger, self._factor)
        calm = torch.where(grown, larger, self._factor)
        self._factor = torch.where(overflowed, self._factor * self._backoff, calm)
        self._steps = torch.where(overflowed | grown, torch.zeros_like(self._steps), self._steps + 1)

    def is_overflow(self, loss: float, norm: float, factor: float) -> bool:
        """Whether a step with these numbers was too much for float16 and no more: the loss itself was finite.

        Where the factor has come down to 1 nothing is left to blame on it.
        """
        return factor > 1 and _finite(loss) and not _finite(norm)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps; waits for the device."""
        return {
            "scale": float(self._factor),
            "growth_factor": self._growth,
            "backoff_factor": self._backoff,
            "growth_interval": self._interval,
            "_growth_tracker": int(self._steps),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from `state_dict`, or from that of torch's scaler."""
        self._factor = torch.full_like(self._factor, state_dict["scale"])
        self._steps = torch.full_like(self._steps, state_dict["_growth_tracker"])
        self._growth, self._backoff = state_dict["growth_factor"], state_dict["backoff_factor"]
        self._interval = state_dict["growth_interval"]


def _finite(value: float) -> bool:
    return abs(value) < float("inf")


def _widen(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.float() if isinstance(value, Tensor) else value for value in inputs)


def _narrow(dtype: torch.dtype) -> Any:
    def back(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return output.to(dtype)

    return back
