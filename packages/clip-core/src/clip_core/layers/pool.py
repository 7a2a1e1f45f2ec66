"""Pooling by attention: learned queries read a transformer's output (Yu et al. 2022, CoCa).

Shapes: B batch, S sequence, Q queries, V width of the sequence, W width of the queries.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clip_core.layers.attention import CrossAttention

__all__ = ["AttentionPool"]


class AttentionPool(nn.Module):
    """(B, S, V) -> (B, Q, W), both inputs of the attention behind a norm of their own."""

    def __init__(self, width: int, context_width: int, heads: int, queries: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(queries, width))
        self.attn = CrossAttention(width, heads, context_width)
        self.ln_q = nn.LayerNorm(width)
        self.ln_k = nn.LayerNorm(context_width)

    def reset_parameters(self) -> None:
        """Draw new weights: queries from the standard normal, torch's own choice for the rest."""
        nn.init.normal_(self.query)
        self.attn.reset_parameters()
        self.ln_q.reset_parameters()
        self.ln_k.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, V) -> (B, Q, W)."""
        queries = self.ln_q(self.query).expand(x.shape[0], -1, -1)
        out: Tensor = self.attn(queries, self.ln_k(x))
        return out
