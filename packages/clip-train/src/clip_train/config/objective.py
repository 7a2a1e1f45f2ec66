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
    coca_caption_loss_weight: float = flag(2.0, help="CoCa: what the caption loss is multiplied by")
    coca_contrastive_loss_weight: float = flag(1.0, help="CoCa: what the contrastive loss is multiplied by")
    distill_model: str | None = flag(None, help="architecture of a frozen teacher, whose choices are learned, too")
    distill_pretrained: str | None = flag(None, help="its weights: a tag, a bundle folder or a weight file")

    def check(self) -> None:
        for name in ("coca_caption_loss_weight", "coca_contrastive_loss_weight"):
            self.require(getattr(self, name) >= 0, name, "0 or more")
        self.require(
            self.coca_caption_loss_weight + self.coca_contrastive_loss_weight > 0,
            "coca_caption_loss_weight",
            "above 0 where coca_contrastive_loss_weight is 0: nothing would be learned",
        )
        self.require(
            bool(self.distill_model) == bool(self.distill_pretrained),
            "distill_pretrained",
            "given where distill_model is, and only there: a teacher needs weights",
        )
        self.require(
            not (self.siglip and self.distill_model),
            "distill_model",
            "None with siglip: a teacher's choice among texts is defined for CLIP's loss",
        )
