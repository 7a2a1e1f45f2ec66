"""What is minimised: the contrastive loss, and beside it a captioner's or a teacher's."""

from __future__ import annotations

from clip_train.objective.building import build_objective
from clip_train.objective.captioning import Captioning
from clip_train.objective.contrastive import Contrastive
from clip_train.objective.distillation import Distillation, check_teacher
from clip_train.objective.interface import Features, Objective

__all__ = ["Captioning", "Contrastive", "Distillation", "Features", "Objective", "build_objective", "check_teacher"]
