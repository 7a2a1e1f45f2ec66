"""Learning from a teacher: beside the contrastive loss, the probabilities that a frozen model gives the same pairs.

The teacher sees the pictures and the tokens that the student sees. What this room leaves out: the loss itself
(`loss.distillation`), and where the teacher comes from (`plan`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

import clip_core
from clip_core.config import PreprocessConfig
from clip_core.errors import ConfigError
from clip_core.towers.token_rows import needs_whole_rows
from clip_train.data.decode import Batch
from clip_train.loss.distillation import distillation_loss
from clip_train.objective.interface import Features, Objective

__all__ = ["Distillation", "check_teacher"]


class Distillation:
    """The distillation loss beside another objective."""

    def __init__(self, other: Objective, teacher: clip_core.Bundle, student: clip_core.Bundle) -> None:
        """`teacher` is frozen and put in evaluation mode; `check_teacher` says whether it can teach this `student`."""
        self._other = other
        self._teacher = teacher.model.eval().requires_grad_(False)
        self._scale = teacher.model.logit_scale.detach().exp()
        self._pixels = _pixel_change(student.config.preprocess, teacher.config.preprocess, self._scale.device)

    def joint(self, features: Features, extra: dict[str, Tensor]) -> dict[str, Tensor]:
        """Those of the other objective, and "distill"."""
        taught = (extra["teacher_images"], extra["teacher_texts"], self._scale)
        distill = distillation_loss(features.images, features.texts, features.scale, *taught)
        return {**self._other.joint(features, extra), "distill": distill}

    @torch.no_grad()
    def cached(self, batch: Batch) -> dict[str, Tensor]:
        """The teacher's features of the pairs of this batch, whose pixels are normalised as the student's."""
        images = batch.images
        if self._pixels is not None:
            images = images * self._pixels.factor + self._pixels.offset
        found = self._teacher(images, batch.tokens, batch.lengths.tolist())
        return {
            **self._other.cached(batch),
            "teacher_images": found.image_features,
            "teacher_texts": found.text_features,
        }

    def own(self, output: Any, batch: Batch) -> dict[str, Tensor]:
        """As the other objective."""
        return self._other.own(output, batch)

    def weights(self, batches: Sequence[Batch]) -> Tensor | None:
        """As the other objective."""
        return self._other.weights(batches)


def check_teacher(teacher: clip_core.ClipConfig, student: clip_core.ClipConfig) -> None:
    """Raise `ConfigError` unless the teacher can read what the student reads."""
    own, longest = student.text.context_length, teacher.text.context_length
    reader = dataclasses.replace(teacher.tokenizer, context_length=own)
    for what, asked, held in (
        ("sees images of", teacher.image.image_size, student.image.image_size),
        ("reads the tokens of", reader, student.tokenizer),
    ):
        if _pair(asked) != _pair(held):
            raise ConfigError(
                f"The teacher {what} {asked} and the model {held}; a batch is read once, for both. Choose a "
                "--distill-model with the same image size and tokenizer."
            )
    if longest < own or (needs_whole_rows(teacher) and longest != own):
        raise ConfigError(
            f"The teacher reads {longest} tokens and the model {own}; choose a --distill-model with the same context "
            "length."
        )


def _pair(size: Any) -> Any:
    return (size, size) if isinstance(size, int) else size


class _PixelChange(NamedTuple):
    """From pixels as the student has them to the teacher's, (3, 1, 1) each: times `factor`, plus `offset`."""

    factor: Tensor
    offset: Tensor


def _pixel_change(student: PreprocessConfig, teacher: PreprocessConfig, device: torch.device) -> _PixelChange | None:
    """What another mean and deviation ask for; None where both have the same.

    A pixel p is (p - mean) / std to the student and (p - mean') / std' to the teacher, which is the first times
    std / std', plus (mean - mean') / std'.
    """
    if (student.mean, student.std) == (teacher.mean, teacher.std):
        return None
    mean, std, other_mean, other_std = (
        torch.tensor(values, dtype=torch.float64).reshape(3, 1, 1)
        for values in (student.mean, student.std, teacher.mean, teacher.std)
    )
    change = std / other_std, (mean - other_mean) / other_std
    return _PixelChange(*(value.float().to(device) for value in change))
