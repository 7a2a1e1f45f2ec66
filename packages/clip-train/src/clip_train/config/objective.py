"""What is minimised: `ObjectiveConfig`."""

from __future__ import annotations

import dataclasses
from typing import Literal

from clip_core.schema import Schema
from clip_train.config.flag import flag

__all__ = ["ObjectiveConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveConfig(Schema):
    """The loss."""

    siglip: bool = flag(
        False, help="SigLIP's sigmoid loss; a model without a bias gets one, and scale and bias begin as in open_clip"
    )
    loss_dist_impl: Literal["gather", "ring"] = flag(
        "gather",
        help="with several processes each loss gathers the texts of all, or passes them round in a ring with less "
        "memory and more to send; same result. open_clip's bidir and shift are ring, reduce is gather",
    )
    local_loss: bool = flag(False, help="taken and not needed: the gradient is that of the whole batch in any case")
    gather_with_grad: bool = flag(False, help="taken and not needed, as --local-loss")
