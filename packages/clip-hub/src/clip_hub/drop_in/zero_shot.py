"""OpenCLIP's two functions that make classifier weights of class names and templates; clip-core computes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import clip_core.zero_shot

__all__ = ["build_zero_shot_classifier", "build_zero_shot_classifier_legacy"]


def build_zero_shot_classifier(
    model: Any,
    tokenizer: Any,
    classnames: Sequence[str],
    templates: Sequence[Callable[[str], str] | str],
    num_classes_per_batch: int | None = 10,
    device: str | torch.device = "cpu",
    use_tqdm: bool = False,
) -> Tensor:
    """Classifier weights (D, C) on `device`: the mean of each class's normalised prompts, normalised again.

    Args:
        model: one of `create_model`.
        tokenizer: the model's own.
        classnames: C names.
        templates: functions of a name, or strings with "{}" or "{c}".
        num_classes_per_batch: classes whose prompts are encoded at once; None is all.
        device: where the result goes.
        use_tqdm: show a bar on stderr.

    Raises:
        ConfigError: no classes, no templates, or a template without a place for the name.
    """
    batch = len(classnames) if num_classes_per_batch is None else num_classes_per_batch
    weights = clip_core.zero_shot.build_zero_shot_classifier(
        model, tokenizer, classnames, templates, batch_size=max(1, batch * len(templates)), progress=use_tqdm
    )
    return weights.to(device=device, dtype=getattr(model, "dtype", weights.dtype))


def build_zero_shot_classifier_legacy(
    model: Any,
    tokenizer: Any,
    classnames: Sequence[str],
    templates: Sequence[Callable[[str], str] | str],
    device: str | torch.device = "cpu",
    use_tqdm: bool = False,
) -> Tensor:
    """As `build_zero_shot_classifier`, one class at a time."""
    return build_zero_shot_classifier(model, tokenizer, classnames, templates, 1, device, use_tqdm)
