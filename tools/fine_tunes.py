"""Small fine-tuned models for the tests of the tools that work on weights."""

from __future__ import annotations

from pathlib import Path

import torch

import clip_core
from clip_core import Bundle

__all__ = ["fine_tunes"]


def fine_tunes(folder: Path, count: int = 3, *, noise: float = 0.01) -> list[Path]:
    """Bundles of "tiny" that have wandered from one start: folder/0, folder/1 ..."""
    torch.manual_seed(0)
    start = clip_core.create_model("tiny").state_dict()
    found = []
    for number in range(count):
        model = clip_core.create_model("tiny")
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(start[name] + noise * torch.randn(start[name].shape))
        found.append(clip_core.save(Bundle.of(model), folder / str(number)))
    return found
