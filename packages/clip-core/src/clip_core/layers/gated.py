"""The block of OpenCLIP's 2026 text tower: rotary attention that may be gated, and a gated MLP, without biases.

Shapes: B batch, S sequence, W width, H heads, C = W / H channels of a head, M hidden width of the MLP. Parameters are
named as in OpenCLIP's repository: `norm1`, `attn.qkv`, `attn.gate`, `attn.proj`, `norm2`, `mlp.w12`, `mlp.w3`.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from clip_core.layers.rotary import rotate

__all__ = ["GatedAttention", "GatedBlock", "GatedMlp"]

# What silu(a) * b lacks in variance against GELU, under weights with standard deviation (2 W)^-1/2.
_GATED_GAIN = 1.22


class GatedMlp(nn.Module):
    """SwiGLU (Shazeer 2020): silu of one half of the first layer scales the other. (B, S, W) -> (B, S, W)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(width, 2 * hidden, bias=False)  # the values, then their gates
        self.w3 = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, W) -> (B, S, W)."""
        values, gates = self.w12(x).chunk(2, dim=-1)
        out: Tensor = self.w3(values * F.silu(gates))
        return out


class GatedAttention(nn.Module):
    """Self-attention with rotary positions; with `gated` a sigmoid of the input scales each channel that leaves it.

    `query_key_norm` puts an RMS norm over the channels of each head on queries and keys, before they are rotated.
    """

    def __init__(
        self, width: int, heads: int, *, causal: bool, gated: bool, query_key_norm: bool, norm_eps: float
    ) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        channels = width // heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_norm = nn.RMSNorm(channels, eps=norm_eps) if query_key_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(channels, eps=norm_eps) if query_key_norm else nn.Identity()
        self.gate = nn.Linear(width, width, bias=False) if gated else None
        self.proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, table: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """(B, S, W), the table of `rotary_table`, and which keys are seen (B, 1, 1, S) or None -> (B, S, W).

        A causal one takes no mask: padding stands behind a text, where nothing looks at it.
        """
        batch, length, width = x.shape
        query, key, value = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        query, key = rotate(self.q_norm(query), *table), rotate(self.k_norm(key), *table)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=self.causal)
        mixed = mixed.transpose(1, 2).reshape(batch, length, width)
        if self.gate is not None:
            mixed = mixed * self.gate(x).sigmoid()
        out: Tensor = self.proj(mixed)
        return out


class GatedBlock(nn.Module):
    """Attention, then MLP, each behind an RMS norm and added to what came in."""

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_dim: int,
        *,
        causal: bool,
        gated_attention: bool,
        query_key_norm: bool,
        norm_eps: float,
    ) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(width, eps=norm_eps)
        self.attn = GatedAttention(
            width, heads, causal=causal, gated=gated_attention, query_key_norm=query_key_norm, norm_eps=norm_eps
        )
        self.norm2 = nn.RMSNorm(width, eps=norm_eps)
        self.mlp = GatedMlp(width, mlp_dim)

    def reset_parameters(self, layers: int) -> None:
        """Draw new weights for a stack of `layers` blocks: normals as in OpenCLIP, gains of 1."""
        std = self.attn.proj.in_features**-0.5
        # Each of the 2 * layers branches adds to the residual stream; so its variance does not grow with depth.
        branch_std = std * (2 * layers) ** -0.5
        nn.init.normal_(self.attn.qkv.weight, std=std)
        nn.init.normal_(self.attn.proj.weight, std=branch_std)
        if self.attn.gate is not None:
            nn.init.normal_(self.attn.gate.weight, std=std)
        nn.init.normal_(self.mlp.w12.weight, std=_GATED_GAIN * 2**-0.5 * std)
        nn.init.normal_(self.mlp.w3.weight, std=branch_std)
        for module in self.modules():
            if isinstance(module, nn.RMSNorm):
                module.reset_parameters()

    def forward(self, x: Tensor, table: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """(B, S, W) -> (B, S, W); arguments as in `GatedAttention.forward`."""
        x = x + self.attn(self.norm1(x), table, mask)
        x = x + self.mlp(self.norm2(x))
        return x
