"""From pixels of 8 bits to the numbers that a tower takes, on whatever device they are.

Batches travel as uint8, a quarter of the bytes, and become float32 where they are used. What this room leaves out: how
pixels are made (`preprocess`, `train_pixels`).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Normalize"]


class Normalize:
    """uint8 (..., 3, height, width) to float32 of this shape: to [0, 1], less the mean, by the standard deviation.

    The operations are those of torchvision's ToTensor and Normalize, in their order, so the numbers are the same to the
    bit. Pixels that are float32 are normalised already and come back as they are.
    """

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        # A scalar would be multiplied by its reciprocal on a GPU, which rounds differently.
        self._values = tuple(torch.tensor(value, dtype=torch.float32) for value in (255.0, mean, std))
        self._on: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = {}

    def __call__(self, pixels: Tensor) -> Tensor:
        if pixels.dtype == torch.float32:
            return pixels
        white, mean, std = self._on.get(pixels.device) or self._bring(pixels.device)
        found = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        return found.div_(white).sub_(mean).div_(std)

    def _bring(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        white, mean, std = (value.to(device) for value in self._values)
        self._on[device] = white, mean[:, None, None], std[:, None, None]
        return self._on[device]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_on": {}}
