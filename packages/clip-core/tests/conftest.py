"""What several tests use: a real photograph, and a small model whose weights do not change."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch

import clip_core


@pytest.fixture
def photo() -> PIL.Image.Image:
    """A smooth colour picture with noise, 300 x 200, the same every time."""
    rows, columns = np.mgrid[0:200, 0:300]
    waves = np.stack([np.sin(rows / 17), np.cos(columns / 23), np.sin((rows + columns) / 31)], axis=-1)
    noise = np.random.default_rng(0).normal(0, 12, waves.shape)
    return PIL.Image.fromarray(np.clip(127 + 90 * waves + noise, 0, 255).astype("uint8"))


@pytest.fixture
def tiny() -> clip_core.Bundle:
    """An untrained `tiny` bundle, the same every time."""
    torch.manual_seed(0)
    return clip_core.create("tiny")
