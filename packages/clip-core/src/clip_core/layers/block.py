"""The pre-norm residual block that CLIP's transformers repeat, and the stack of them.

Shapes: B batch, S sequence, W width. Module names follow OpenAI's checkpoints: `resblocks.N.ln_1`, `attn`, `ln_2`,
`mlp.c_fc`, `mlp.c_proj`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from clip_core.config import Activation
from clip_core.layers.attention import Attention

__all__ = ["Mlp", "QuickGelu", "ResidualBlock", "Transformer"]


class QuickGelu(nn.Module):
    """x * sigmoid(1.702 x), the approximation of GELU that OpenAI trained CLIP with."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise, any shape."""
        return x * torch.sigmoid(1.702 * x)


_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": functools.partial(nn.GELU, approximate="tanh"),
    "quick_gelu": QuickGelu,
}


class Mlp(nn.Module):
    """Two linear layers with the activation between them: W -> hidden -> W."""

    def __init__(self, width: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, hidden)
        self.gelu = _ACTIVATIONS[activation]()
        self.c_proj = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, W) -> (B, S, W)."""
        out: Tensor = self.c_proj(self.gelu(self.c_fc(x)))
        return out


class ResidualBlock(nn.Module):
    """Attention, then MLP, each behind a layer norm and added to what came in."""

    def __init__(self, width: int, heads: int, mlp_dim: int, activation: Activation, *, causal: bool) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads, causal=causal)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, mlp_dim, activation)

    def reset_parameters(
        self, *, in_std: float | None = None, fc_std: float | None = None, out_std: float | None = None
    ) -> None:
        """Draw new weights: normals with the standard deviations given, torch's own choice where none is.

        `in_std` is of the query, key and value weights, `fc_std` of the first MLP layer, `out_std` of the two layers
        that write to the residual stream.
        """
        self.ln_1.reset_parameters()
        self.ln_2.reset_parameters()
        self.attn.reset_parameters(in_std, out_std)
        self.mlp.c_fc.reset_parameters()
        self.mlp.c_proj.reset_parameters()
        if fc_std is not None:
            nn.init.normal_(self.mlp.c_fc.weight, std=fc_std)
        if out_std is not None:
            nn.init.normal_(self.mlp.c_proj.weight, std=out_std)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, W) -> (B, S, W)."""
        x = x + self.attn(self.ln_1(x))
        x = x + self.mlp(self.ln_2(x))
        return x


class Transformer(nn.Module):
    """`layers` residual blocks of one size."""

    def __init__(
        self, width: int, layers: int, heads: int, mlp_dim: int, activation: Activation, *, causal: bool
    ) -> None:
        super().__init__()
        self.width = width
        self.resblocks = nn.ModuleList(
            ResidualBlock(width, heads, mlp_dim, activation, causal=causal) for _ in range(layers)
        )

    def reset_parameters(
        self, *, in_std: float | None = None, fc_std: float | None = None, out_std: float | None = None
    ) -> None:
        """Draw new weights in every block, see `ResidualBlock.reset_parameters`."""
        for block in self.resblocks:
            assert isinstance(block, ResidualBlock)
            block.reset_parameters(in_std=in_std, fc_std=fc_std, out_std=out_std)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, W) -> (B, S, W)."""
        for block in self.resblocks:
            x = block(x)
        return x
