"""The losses as training calls them: one process or several, with the gradients that belong to the whole batch.

With several processes all communication is in the forward pass, which also computes the gradients; the backward pass
multiplies them with the gradient from above and needs no other process. So it makes no difference in which order, how
often, or whether at all the processes go backward.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
import torch.distributed as dist
from torch import Tensor

from clip_core import kernels
from clip_core.errors import ConfigError
from clip_train.loss import gathered, ring
from clip_train.loss.agreement import agree
from clip_train.loss.computed import Computed
from clip_train.loss.exchange import Exchange, is_several
from clip_train.loss.share import Found, Share, Wanted

__all__ = ["ContrastiveLoss", "Kind", "Scheme", "clip_loss", "siglip_loss"]

Kind = Literal["clip", "siglip"]
Scheme = Literal["gather", "ring"]
Compute = Callable[[Share, Exchange, Wanted], Found]

_COMPUTE: dict[tuple[str, str], Compute] = {
    ("clip", "gather"): gathered.clip,
    ("clip", "ring"): ring.clip,
    ("siglip", "gather"): gathered.siglip,
    ("siglip", "ring"): ring.siglip,
}
_ALONE: dict[str, Callable[..., Tensor]] = {"clip": kernels.clip_loss, "siglip": kernels.siglip_loss}


def clip_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float | None = None,
    *,
    scheme: Scheme = "gather",
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """`clip_core.kernels.clip_loss` over the pairs of all processes of `group`; each hands in its own.

    The loss of a process is the mean over its own pairs, so that the mean over the processes is the loss of the whole
    batch. The gradients of its features are those of the sum of all processes' losses, and the gradients of the scale
    and the bias are its part of that sum. `DistributedDataParallel` averages over the processes, and so every parameter
    gets the gradient that one process with the whole batch would compute. Nothing has to be multiplied by the number of
    processes; a gradient from above, as a GradScaler's, has to be the same on all of them.

    Args:
        image_features: (b, D), rows of length 1; b, D and dtypes are the same on every process.
        text_features: (b, D), rows of length 1; row i belongs to image i.
        logit_scale: scalar that multiplies the cosines, the same number on every process. A number or a tensor on the
            CPU is compared with the others' (1e-5 apart is the same); the value of a tensor on a device is not, since
            the program would have to wait for it.
        logit_bias: scalar added to every logit, or None, on every process the same, as the scale. It cancels in the
            softmax.
        scheme: "gather" holds all texts for the time of the loss; "ring" only a few times this process's own, for
            batches whose gathered texts and their gradients would not fit.
        group: None is all processes. Where none were joined, or one, the loss is that of this process alone.

    Returns:
        Scalar in nats, float32 (float64 for float64 features).

    Raises:
        ConfigError: on every process of the group, where the inputs of one cannot be used or do not match those of the
            others. A process that does not come at all, because it failed elsewhere, lets the others wait for the
            timeout of the group, where they raise torch's error; set it with `init_process_group(timeout=...)`.
    """
    return _loss("clip", scheme, group, image_features, text_features, logit_scale, logit_bias)


def siglip_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float | None = None,
    *,
    scheme: Scheme = "gather",
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """`clip_core.kernels.siglip_loss` over the pairs of all processes of `group`; each hands in its own.

    The loss of a process is that of its own images with the texts of all, over the number of its images. Everything
    else is as for `clip_loss`; a bias of None is 0.
    """
    return _loss("siglip", scheme, group, image_features, text_features, logit_scale, logit_bias)


@dataclasses.dataclass(frozen=True, slots=True)
class ContrastiveLoss:
    """`clip_loss` or `siglip_loss` with everything chosen but the features; call it with a model's output.

    `loss = ContrastiveLoss("siglip"); loss(*model(images, tokens)).backward()`
    """

    kind: Kind = "clip"
    scheme: Scheme = "gather"
    group: dist.ProcessGroup | None = None

    def __post_init__(self) -> None:
        _check_choice("kind", self.kind, get_args(Kind))
        _check_choice("scheme", self.scheme, get_args(Scheme))

    def __call__(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float,
        logit_bias: Tensor | float | None = None,
    ) -> Tensor:
        """The loss of this process; arguments and result as for `clip_loss`."""
        return _loss(self.kind, self.scheme, self.group, image_features, text_features, logit_scale, logit_bias)


def _check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}; allowed: {' or '.join(map(repr, allowed))}.")


def _loss(
    kind: Kind,
    scheme: Scheme,
    group: dist.ProcessGroup | None,
    images: Tensor,
    texts: Tensor,
    scale: Tensor | float,
    bias: Tensor | float | None,
) -> Tensor:
    _check_choice("scheme", scheme, get_args(Scheme))
    if not is_several(group):
        alone: Tensor = _ALONE[kind](images, texts, scale, bias)
        return alone
    exchange = Exchange.of(group)
    inputs, share, wanted = agree(f"{kind}_loss", scheme, exchange, images, texts, scale, bias)
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        found = _COMPUTE[kind, scheme](share, exchange, wanted)
    loss: Tensor = Computed.apply(*inputs, found)
    return loss
