"""The pre-norm residual block that CLIP's transformers repeat, and the stack of them.

Shapes: B batch, S sequence, W width. Module names follow OpenAI's checkpoints: `resblocks.N.ln_1`, `attn`, `ln_2`,
`mlp.c_fc`, `mlp.c_proj`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clip_core.config import Activation
from clip_core.errors import ConfigError
from clip_core.kernels import quick_gelu
from clip_core.layers.attention import Attention
from clip_core.layers.drop import DropPath
from clip_core.layers.reading import Reading

__all__ = ["LayerScale", "Mlp", "QuickGelu", "ResidualBlock", "Transformer", "pick_layers"]


class QuickGelu(nn.Module):
    """x * sigmoid(1.702 x), the approximation of GELU that OpenAI trained CLIP with."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise, any shape."""
        return quick_gelu(x)


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


class LayerScale(nn.Module):
    """A learned gain per channel on a residual branch, small at the start (Touvron et al. 2021, CaiT)."""

    def __init__(self, width: int, initial: float) -> None:
        super().__init__()
        self.initial = initial
        self.gamma = nn.Parameter(torch.empty(width))

    def reset_parameters(self) -> None:
        """Every gain to its initial value."""
        nn.init.constant_(self.gamma, self.initial)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, W) -> (B, S, W)."""
        return x * self.gamma


class ResidualBlock(nn.Module):
    """Attention, then MLP, each behind a layer norm and added to what came in.

    `layer_scale` is the initial gain of each branch, or None for none; `drop_path` the chance that a sample goes
    round a branch in training.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_dim: int,
        activation: Activation,
        *,
        causal: bool,
        norm_eps: float = 1e-5,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=norm_eps)
        self.attn = Attention(width, heads, causal=causal)
        self.ls_1 = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)
        self.ln_2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width, mlp_dim, activation)
        self.ls_2 = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

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
        for scale in (self.ls_1, self.ls_2):
            if isinstance(scale, LayerScale):
                scale.reset_parameters()

    def forward(self, x: Tensor, mask: Tensor | None = None, reading: Reading | None = None) -> Tensor:
        """(B, S, W) -> (B, S, W), or the positions that `reading` takes; `mask` as in `Attention.forward`."""
        branch = self.drop_path(self.ls_1(self.attn(self.ln_1(x), mask, reading)))
        x = (x if reading is None else reading.take(x)) + branch
        x = x + self.drop_path(self.ls_2(self.mlp(self.ln_2(x))))
        return x


class Transformer(nn.Module):
    """`layers` residual blocks of one size; `drop_path` rises linearly from 0 at the first to its value at the last."""

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        mlp_dim: int,
        activation: Activation,
        *,
        causal: bool,
        norm_eps: float = 1e-5,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.width = width
        self.grad_checkpointing = False
        """Recompute each block in the backward pass instead of keeping what is inside it."""
        self.resblocks = nn.ModuleList(
            ResidualBlock(
                width,
                heads,
                mlp_dim,
                activation,
                causal=causal,
                norm_eps=norm_eps,
                layer_scale=layer_scale,
                drop_path=drop_path * index / max(1, layers - 1),
            )
            for index in range(layers)
        )

    def reset_parameters(
        self, *, in_std: float | None = None, fc_std: float | None = None, out_std: float | None = None
    ) -> None:
        """Draw new weights in every block, see `ResidualBlock.reset_parameters`."""
        for block in self.resblocks:
            assert isinstance(block, ResidualBlock)
            block.reset_parameters(in_std=in_std, fc_std=fc_std, out_std=out_std)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, S, W) -> (B, S, W); `mask` as in `Attention.forward`."""
        for block in self.resblocks:
            x = self._run(block, x, mask)
        return x

    def read(self, x: Tensor, last: Reading, others: Reading | None = None) -> Tensor:
        """As `forward`, with `others` in all blocks but the last and `last` in that one: what the latter takes."""
        *blocks, final = self.resblocks
        for block in blocks:
            x = self._run(block, x, None, others)
        return self._run(final, x, None, last)

    def intermediates(self, x: Tensor, layers: Sequence[int] | None = None, mask: Tensor | None = None) -> list[Tensor]:
        """What leaves each block, (B, S, W): of all, or of `layers` in the order asked for, -1 being the last.

        Blocks behind the last one asked for are not run. Raises `ConfigError` for a layer that is not there.
        """
        wanted = pick_layers(len(self.resblocks), layers)
        outputs: dict[int, Tensor] = {}
        for index, block in enumerate(self.resblocks[: max(wanted, default=-1) + 1]):
            x = self._run(block, x, mask)
            outputs[index] = x
        return [outputs[index] for index in wanted]

    def _run(self, block: nn.Module, x: Tensor, mask: Tensor | None, reading: Reading | None = None) -> Tensor:
        if self.grad_checkpointing and torch.is_grad_enabled():
            out: Tensor = checkpoint(block, x, mask, reading, use_reentrant=False)
        else:
            out = block(x, mask, reading)
        return out


def pick_layers(count: int, layers: Sequence[int] | None) -> list[int]:
    """`layers` as indices from 0 of `count` layers, all of them for None; negative ones count from the end.

    Raises `ConfigError` for one that is not there.
    """
    if layers is None:
        return list(range(count))
    for layer in layers:
        if not -count <= layer < count:
            raise ConfigError(f"layers has {layer}; allowed: {-count} to {count - 1}, for {count} layers.")
    return [layer % count for layer in layers]
