"""OpenCLIP's losses as modules, for one process; the mathematics is clip-core's, which holds no matrix of logits.

Shapes: B pairs, D features, S tokens, V vocabulary. What this room leaves out: losses over several processes, which are
clip-train's.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_core.errors import ConfigError
from clip_core.kernels.contrastive import clip_loss
from clip_core.kernels.sigmoid import siglip_loss

__all__ = ["ClipLoss", "CoCaLoss", "DistillClipLoss", "SigLipLoss", "create_loss"]


class ClipLoss(nn.Module):
    """CLIP's contrastive loss (Radford et al. 2021) with OpenCLIP's arguments.

    `local_loss`, `gather_with_grad` and `rank` say how processes share the work and change nothing for one;
    `cache_labels` changes nothing either, since no labels are made.

    Raises:
        ConfigError: more than one process, or Horovod.
    """

    def __init__(
        self,
        local_loss: bool = False,
        gather_with_grad: bool = False,
        cache_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
        use_horovod: bool = False,
    ) -> None:
        super().__init__()
        _require_one_process(type(self).__name__, world_size, use_horovod)
        self.local_loss = local_loss
        self.gather_with_grad = gather_with_grad
        self.cache_labels = cache_labels
        self.rank = rank
        self.world_size = world_size
        self.use_horovod = use_horovod

    def get_ground_truth(self, device: torch.device | str, num_logits: int) -> Tensor:
        """(B,) int64: the column of each row's own partner."""
        return torch.arange(num_logits, device=device)

    def get_logits(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float,
        logit_bias: Tensor | float | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The whole matrices (B, B) of logits, of images for texts and of texts for images."""
        logits = _matrix(image_features, text_features, logit_scale, logit_bias)
        return logits, logits.T

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float,
        logit_bias: Tensor | float | None = None,
        output_dict: bool = False,
    ) -> Any:
        """Features (B, D) of length 1 -> the loss, or {"contrastive_loss": loss}; see `clip_loss`."""
        loss = clip_loss(image_features, text_features, logit_scale, logit_bias)
        return {"contrastive_loss": loss} if output_dict else loss


class CoCaLoss(ClipLoss):
    """CoCa's two losses, each with its weight (Yu et al. 2022): contrastive, and cross-entropy of the caption's tokens.

    `pad_id` is the label that does not count.
    """

    def __init__(
        self,
        caption_loss_weight: float,
        clip_loss_weight: float,
        pad_id: int = 0,
        local_loss: bool = False,
        gather_with_grad: bool = False,
        cache_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
        use_horovod: bool = False,
    ) -> None:
        super().__init__(local_loss, gather_with_grad, cache_labels, rank, world_size, use_horovod)
        self.clip_loss_weight = clip_loss_weight
        self.caption_loss_weight = caption_loss_weight
        self.pad_id = pad_id

    def forward(  # type: ignore[override]  # the order of OpenCLIP
        self,
        image_features: Tensor,
        text_features: Tensor,
        logits: Tensor,
        labels: Tensor,
        logit_scale: Tensor | float,
        output_dict: bool = False,
    ) -> Any:
        """Features (B, D), `logits` (B, S, V), `labels` (B, S) -> (contrastive, caption), or a dict of the two."""
        contrastive = torch.zeros((), device=logits.device)
        if self.clip_loss_weight:
            contrastive = self.clip_loss_weight * clip_loss(image_features, text_features, logit_scale)
        caption = F.cross_entropy(logits.permute(0, 2, 1), labels, ignore_index=self.pad_id) * self.caption_loss_weight
        if output_dict:
            return {"contrastive_loss": contrastive, "caption_loss": caption}
        return contrastive, caption


class DistillClipLoss(ClipLoss):
    """The contrastive loss, and the cross-entropy of a student's logits with a teacher's (Hinton et al. 2015)."""

    def dist_loss(self, teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
        """Cross-entropy between the rows' softmaxes, mean over rows."""
        return -(teacher_logits.softmax(dim=1) * student_logits.log_softmax(dim=1)).sum(dim=1).mean(dim=0)

    def forward(  # type: ignore[override]  # the order of OpenCLIP
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float,
        dist_image_features: Tensor,
        dist_text_features: Tensor,
        dist_logit_scale: Tensor | float,
        output_dict: bool = False,
    ) -> Any:
        """Features (B, D) of the student and of the teacher (`dist_`) -> (contrastive, distilled), or a dict."""
        contrastive = clip_loss(image_features, text_features, logit_scale)
        students = self.get_logits(image_features, text_features, logit_scale)
        teachers = self.get_logits(dist_image_features, dist_text_features, dist_logit_scale)
        distilled = sum(self.dist_loss(*pair) for pair in zip(teachers, students, strict=True)) / 2
        if output_dict:
            return {"contrastive_loss": contrastive, "distill_loss": distilled}
        return contrastive, distilled


class SigLipLoss(nn.Module):
    """SigLIP's pairwise sigmoid loss (Zhai et al. 2023) with OpenCLIP's arguments.

    `dist_impl` says how processes exchange features and changes nothing for one.

    Raises:
        ConfigError: more than one process.
    """

    def __init__(
        self, cache_labels: bool = False, rank: int = 0, world_size: int = 1, dist_impl: str | None = None
    ) -> None:
        super().__init__()
        _require_one_process(type(self).__name__, world_size)
        self.cache_labels = cache_labels
        self.rank = rank
        self.world_size = world_size
        self.dist_impl = dist_impl or "bidir"

    def get_logits(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float,
        logit_bias: Tensor | float | None = None,
    ) -> Tensor:
        """The whole matrix (B, B) of logits, of images for texts."""
        return _matrix(image_features, text_features, logit_scale, logit_bias)

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float,
        logit_bias: Tensor | float | None,
        output_dict: bool = False,
    ) -> Any:
        """Features (B, D) of length 1 -> the loss, or {"contrastive_loss": loss}; see `siglip_loss`."""
        loss = siglip_loss(image_features, text_features, logit_scale, logit_bias)
        return {"contrastive_loss": loss} if output_dict else loss


def create_loss(args: Any) -> nn.Module:
    """The loss that OpenCLIP's training script makes of its parsed arguments."""
    shared = {
        "local_loss": args.local_loss,
        "gather_with_grad": args.gather_with_grad,
        "cache_labels": True,
        "rank": args.rank,
        "world_size": args.world_size,
        "use_horovod": args.horovod,
    }
    if args.distill:
        return DistillClipLoss(**shared)
    if "coca" in args.model.lower():
        return CoCaLoss(args.coca_caption_loss_weight, args.coca_contrastive_loss_weight, **shared)
    if args.siglip:
        return SigLipLoss(rank=args.rank, world_size=args.world_size, dist_impl=args.loss_dist_impl)
    return ClipLoss(**shared)


def _matrix(images: Tensor, texts: Tensor, scale: Tensor | float, bias: Tensor | float | None) -> Tensor:
    """(B, D) and (B, D) -> the logits (B, B) of images for texts."""
    logits = scale * images @ texts.T
    return logits if bias is None else logits + bias


def _require_one_process(name: str, world_size: int, use_horovod: bool = False) -> None:
    if use_horovod:
        raise ConfigError(f"{name} got use_horovod=True; allowed: False. clip_train.loss works with torch.distributed.")
    if world_size != 1:
        raise ConfigError(
            f"{name} got world_size={world_size}; allowed: 1. The losses over several processes are in clip-train: "
            "clip_train.loss."
        )
