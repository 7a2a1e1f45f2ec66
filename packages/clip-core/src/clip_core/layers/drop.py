"""What is left out at random in training: patches, and whole branches of a block. Nothing happens in evaluation.

Shapes: B batch, S sequence, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["DropPath", "PatchDropout"]


class _Dropping(nn.Module):
    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def extra_repr(self) -> str:
        """For `print(model)`."""
        return f"rate={self.rate}"


class DropPath(_Dropping):
    """A residual branch set to zero for a sample with probability `rate` (stochastic depth, Huang et al. 2016).

    What stays is divided by 1 - `rate`, so that its mean is what evaluation adds.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> the same shape."""
        if not self.training or self.rate == 0:
            return x
        kept = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(1 - self.rate)
        return x * kept.div_(1 - self.rate)


class PatchDropout(_Dropping):
    """A random share of the patches taken out of each image's sequence (FLIP, Li et al. 2022); the first token stays.

    Of N patches int(N (1 - `rate`)) remain, one at the least, in random order: positions were added before.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1 + N, W) -> (B, 1 + kept, W)."""
        if not self.training or self.rate == 0:
            return x
        first, patches = x[:, :1], x[:, 1:]
        batch, count = patches.shape[:2]
        kept = max(1, int(count * (1 - self.rate)))
        chosen = torch.randn(batch, count, device=x.device).topk(kept, dim=-1).indices
        rows = torch.arange(batch, device=x.device)[:, None]
        return torch.cat([first, patches[rows, chosen]], dim=1)
