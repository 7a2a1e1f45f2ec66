"""Which images a probe learns from: few shots, and a part of the training set kept back for validation.

Images are drawn by the hash of seed and key, so a draw depends neither on the order of the images, nor on how they lie
in shards, nor on any library's random numbers. Shapes: N images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from clip_core.errors import ConfigError, DataError

__all__ = ["draw_shots", "hold_out", "shuffled"]


def shuffled(keys: Sequence[str], seed: int) -> Tensor:
    """A random order of the images, int64 (N,), always the same for one seed and one set of keys."""
    digests = [hashlib.sha256(f"{seed}/{key}".encode()).digest() for key in keys]
    return torch.tensor(sorted(range(len(keys)), key=digests.__getitem__), dtype=torch.int64)


def draw_shots(labels: Tensor, order: Tensor, k: int, classnames: Sequence[str]) -> Tensor:
    """The first `k` images of every class in `order`, as places (k x C,) in ascending order.

    Raises:
        ConfigError: k is below 1.
        DataError: a class has fewer than k images.
    """
    if k < 1:
        raise ConfigError(f"fewshot_k is {k}; allowed: 1 or more images of each class, or None for all.")
    counts = torch.bincount(labels, minlength=len(classnames))
    short = [(classnames[place], int(count)) for place, count in enumerate(counts.tolist()) if count < k]
    if short:
        shown = ", ".join(f"{name!r} has {count}" for name, count in short[:5]) + (", ..." if len(short) > 5 else "")
        raise DataError(
            f"{len(short)} of {len(classnames)} classes have fewer than {k} training images: {shown}. Choose a smaller "
            "fewshot_k."
        )
    return order[_place_in_class(labels[order]) < k].sort().values


def hold_out(labels: Tensor, order: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Splits the places in `order` into a part to learn from and, of every class, about `share` to validate on.

    A class of one image is learnt from; of two or more at least one is held out.
    """
    ordered = labels[order]
    counts = torch.bincount(ordered)
    wanted = (counts * share).round().clamp(min=1).minimum(counts - 1)
    held = _place_in_class(ordered) < wanted[ordered]
    return order[~held].sort().values, order[held].sort().values


def _place_in_class(labels: Tensor) -> Tensor:
    """How many earlier entries have the same label, int64 (N,)."""
    by_class = labels.argsort(stable=True)
    counts = torch.bincount(labels)
    first = (counts.cumsum(0) - counts)[labels[by_class]]
    places = torch.empty_like(labels)
    places[by_class] = torch.arange(len(labels)) - first
    return places
