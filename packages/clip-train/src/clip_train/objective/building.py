"""From the flags to the objective."""

from __future__ import annotations

import clip_core
from clip_train.config import ObjectiveConfig
from clip_train.loss import ContrastiveLoss
from clip_train.objective.captioning import Captioning
from clip_train.objective.contrastive import Contrastive
from clip_train.objective.distillation import Distillation
from clip_train.objective.interface import Objective
from clip_train.world import World

__all__ = ["build_objective"]


def build_objective(
    config: ObjectiveConfig,
    student: clip_core.Bundle,
    teacher: clip_core.Bundle | None = None,
    world: World | None = None,
) -> Objective:
    """The objective that the flags ask for: with a decoder the caption loss, with a teacher the distillation loss."""
    world = world or World()
    decoder = student.config.decoder
    loss = ContrastiveLoss("siglip" if config.siglip else "clip", config.loss_dist_impl)
    weight = 1.0 if decoder is None else config.coca_contrastive_loss_weight
    objective: Objective = Contrastive(loss, weight)
    if teacher is not None:
        objective = Distillation(objective, teacher, student)
    if decoder is not None:
        weight = config.coca_caption_loss_weight
        objective = Captioning(objective, weight, decoder.pad_id, world.sum, world.size)
    return objective
