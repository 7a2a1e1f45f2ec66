"""Multi-head attention with parameters named as in `torch.nn.MultiheadAttention`.

Shapes: B batch, S sequence, Q queries, W width, V width of what is attended to, H heads, C = W / H channels of a head.
The names are those of torch's module, which OpenAI's and OpenCLIP's checkpoints were written from.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_core.kernels import attention
from clip_core.layers.reading import Reading

__all__ = ["Attention", "CrossAttention"]


class Attention(nn.Module):
    """Self-attention over (B, S, W); `causal` lets a position see itself and what is before it.

    Parameters: `in_proj_weight` (3W, W), `in_proj_bias` (3W,) and `out_proj`.
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

    def forward(self, x: Tensor, mask: Tensor | None = None, reading: Reading | None = None) -> Tensor:
        """(B, S, W) -> (B, S, W), or what `reading` makes of it.

        `mask`, boolean and broadcastable to (B, H, S, S), is true where a row may see a column. It is the whole
        rule: `causal` says nothing beside it. A `reading` brings a rule of its own.
        """
        if reading is not None:
            read: Tensor = self.out_proj(reading.attend(x, self.in_proj_weight, self.in_proj_bias, self.heads))
            return read
        batch, length, width = x.shape
        packed = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        packed = packed.view(batch, length, 3, self.heads, width // self.heads)
        if mask is None:
            mixed = attention(packed, causal=self.causal)
        else:
            query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)
        out: Tensor = self.out_proj(mixed.reshape(batch, length, width))
        return out


class CrossAttention(nn.Module):
    """Queries (B, Q, W) that attend to (B, S, V).

    Where both widths are equal the three projections are packed as in `Attention`; else they are `q_proj_weight`
    (W, W), `k_proj_weight` (W, V) and `v_proj_weight` (W, V), with one `in_proj_bias` (3W,) all the same.
    """

    def __init__(self, width: int, heads: int, context_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.packed = width == context_width
        if self.packed:
            self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        else:
            self.q_proj_weight = nn.Parameter(torch.empty(width, width))
            self.k_proj_weight = nn.Parameter(torch.empty(width, context_width))
            self.v_proj_weight = nn.Parameter(torch.empty(width, context_width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def reset_parameters(self, in_std: float | None = None, out_std: float | None = None) -> None:
        """As `Attention.reset_parameters`."""
        names = ("in_proj_weight",) if self.packed else ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        for name in names:
            if in_std is None:
                nn.init.xavier_uniform_(getattr(self, name))
            else:
                nn.init.normal_(getattr(self, name), std=in_std)
        self.out_proj.reset_parameters()
        if out_std is not None:
            nn.init.normal_(self.out_proj.weight, std=out_std)
        nn.init.zeros_(self.in_proj_bias)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Queries (B, Q, W) and what they attend to, (B, S, V), -> (B, Q, W)."""
        batch, length, width = x.shape
        if self.packed:
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases = self.in_proj_bias.chunk(3)
        query, key, value = (
            F.linear(source, weight, bias).view(batch, source.shape[1], self.heads, width // self.heads).transpose(1, 2)
            for source, weight, bias in zip((x, context, context), weights, biases, strict=True)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).reshape(batch, length, width))
        return out
