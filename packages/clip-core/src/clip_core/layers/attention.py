"""Multi-head self-attention with packed query, key and value, parameters named as in `torch.nn.MultiheadAttention`.

Shapes: B batch, S sequence, W width, H heads, C = W / H channels of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Attention"]


class Attention(nn.Module):
    """Self-attention over (B, S, W); `causal` lets a position see itself and what is before it.

    The names `in_proj_weight` (3W, W), `in_proj_bias` (3W,) and `out_proj` are those of torch's module, which
    OpenAI's and OpenCLIP's checkpoints were written from.
    """

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def reset_parameters(self, in_std: float | None = None, out_std: float | None = None) -> None:
        """Draw new weights: normal with the standard deviations given, else torch's own choice for attention."""
        if in_std is None:
            nn.init.xavier_uniform_(self.in_proj_weight)
        else:
            nn.init.normal_(self.in_proj_weight, std=in_std)
        if out_std is None:
            self.out_proj.reset_parameters()
        else:
            nn.init.normal_(self.out_proj.weight, std=out_std)
        nn.init.zeros_(self.in_proj_bias)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, W) -> (B, S, W)."""
        batch, length, width = x.shape
        packed = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        # (B, S, 3, H, C) -> three views of (B, H, S, C)
        query, key, value = (
            packed.view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).reshape(batch, length, width))
        return out
