"""Rotary positions (Su et al. 2021): queries and keys are turned by an angle that grows with their position.

Shapes: S sequence, C channels of a head, in pairs of neighbours (2k, 2k + 1). The angles are computed where they are
needed and kept nowhere: a buffer would follow the model to bfloat16, where the angle of position 77 is off by up to
0.15 radians.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["rotary_table", "rotate"]


def rotary_table(length: int, channels: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the angles, each (S, C / 2), float32: position times `theta` ** (-2k / C) for pair k."""
    pairs = torch.arange(0, channels, 2, device=device, dtype=torch.float32)
    positions = torch.arange(length, device=device, dtype=torch.float32)
    angles = torch.outer(positions, 1.0 / theta ** (pairs / channels))
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """(..., S, C) -> the same with each pair of channels turned by its angle; tables of `rotary_table`."""
    cosines, sines = cosines.to(x.dtype), sines.to(x.dtype)
    even, odd = x[..., ::2], x[..., 1::2]
    return torch.stack((even * cosines - odd * sines, even * sines + odd * cosines), dim=-1).flatten(-2)
