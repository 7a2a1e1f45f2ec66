"""CoCa's multimodal decoder (Yu et al. 2022): causal blocks over the text, each followed by one that reads the image.

Shapes: B images, R = B * G rows of text (G rows in a row share an image), S text tokens, T image tokens, W width,
H heads, C = W / H channels of a head, V vocabulary. Names follow OpenCLIP's: `resblocks`, `cross_attn`, `ln_final`,
`text_projection`. What comes in are tokens of the two towers; `coca` joins the three.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clip_core.config import Activation, DecoderConfig
from clip_core.layers.attention import CrossAttention
from clip_core.layers.block import Mlp, ResidualBlock
from clip_core.layers.cache import KeyValueCache, continue_block

__all__ = ["CrossBlock", "ImageAttention", "MultimodalDecoder"]

KeysAndValues = tuple[Tensor, Tensor]


class ImageAttention(CrossAttention):
    """Text queries over image keys and values, which are computed apart so that many texts can share them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads, width)

    def keys_and_values(self, context: Tensor) -> KeysAndValues:
        """Image tokens (B, T, W), normed, -> (B, H, T, C) each."""
        batch, length, width = context.shape
        packed = F.linear(context, self.in_proj_weight[width:], self.in_proj_bias[width:])
        keys, values = packed.view(batch, length, 2, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return keys, values

    def read(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """(R, S, W) -> (R, S, W)."""
        rows, length, width = x.shape
        query = F.linear(x, self.in_proj_weight[:width], self.in_proj_bias[:width])
        # Nothing is masked, so the rows that share an image are one longer list of queries.
        query = query.view(keys.shape[0], -1, self.heads, width // self.heads).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(query, keys, values)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).reshape(rows, length, width))
        return out


class CrossBlock(nn.Module):
    """Cross-attention, then MLP, each behind a layer norm and added to what came in."""

    def __init__(self, width: int, heads: int, mlp_dim: int, activation: Activation) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = ImageAttention(width, heads)
        self.ln_1_kv = nn.LayerNorm(width)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, mlp_dim, activation)

    def reset_parameters(self, *, in_std: float, fc_std: float, out_std: float) -> None:
        """Draw new weights as `layers.block.ResidualBlock` does."""
        for norm in (self.ln_1, self.ln_1_kv, self.ln_2):
            norm.reset_parameters()
        self.attn.reset_parameters(in_std, out_std)
        for layer, std in ((self.mlp.c_fc, fc_std), (self.mlp.c_proj, out_std)):
            layer.reset_parameters()
            nn.init.normal_(layer.weight, std=std)

    def keys_and_values(self, image_tokens: Tensor) -> KeysAndValues:
        """(B, T, W) -> what `forward` attends to; the same for every text about these images."""
        return self.attn.keys_and_values(self.ln_1_kv(image_tokens))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """(R, S, W) -> (R, S, W)."""
        x = x + self.attn.read(self.ln_1(x), keys, values)
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class MultimodalDecoder(nn.Module):
    """Image tokens and text tokens -> a logit for each id of the vocabulary to be the next one."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.context_length = config.context_length
        self.grad_checkpointing = False
        size = (config.width, config.heads, config.mlp_dim, config.activation)
        self.resblocks = nn.ModuleList(ResidualBlock(*size, causal=True) for _ in range(config.layers))
        self.cross_attn = nn.ModuleList(CrossBlock(*size) for _ in range(config.layers))
        self.ln_final = nn.LayerNorm(config.width)
        self.text_projection = nn.Parameter(torch.empty(config.width, config.vocab_size))

    def reset_parameters(self) -> None:
        """Draw new weights as the text tower does: normals that shrink with width and number of residual branches.

        OpenCLIP states these standard deviations and does not apply them; its vocabulary layer starts from whatever
        the memory held.
        """
        width, layers = self.config.width, self.config.layers
        stds = {"in_std": width**-0.5, "fc_std": (2 * width) ** -0.5, "out_std": width**-0.5 * (2 * layers) ** -0.5}
        for block, cross in self._pairs():
            block.reset_parameters(**stds)
            cross.reset_parameters(**stds)
        self.ln_final.reset_parameters()
        nn.init.normal_(self.text_projection, std=width**-0.5)

    def forward(self, image_tokens: Tensor, text_tokens: Tensor) -> Tensor:
        """(B, T, W) and (B, S, W) -> logits (B, S, V); those at position i are of token i + 1."""
        x = text_tokens
        for block, cross in self._pairs():
            if self.grad_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
                x = checkpoint(_read_image, cross, x, image_tokens, use_reentrant=False)
            else:
                x = _read_image(cross, block(x), image_tokens)
        return self.logits(x)

    def logits(self, x: Tensor) -> Tensor:
        """What leaves the last block, (..., W), -> (..., V)."""
        out: Tensor = self.ln_final(x) @ self.text_projection
        return out

    def cross_keys_and_values(self, image_tokens: Tensor) -> list[KeysAndValues]:
        """Of every layer, so that a text that grows about the same images computes them once."""
        return [cross.keys_and_values(image_tokens) for _, cross in self._pairs()]

    def read(self, x: Tensor, image: list[KeysAndValues], caches: list[KeyValueCache] | None = None) -> Tensor:
        """Text tokens (R, S, W) -> logits (R, V) of the id after the last.

        With `caches`, `x` holds only what follows the positions that are in them.
        """
        for layer, (block, cross) in enumerate(self._pairs()):
            x = block(x) if caches is None else continue_block(block, x, caches[layer])
            x = cross(x, *image[layer])
        return self.logits(x[:, -1])

    def make_caches(self, rows: int, length: int) -> list[KeyValueCache]:
        """Empty ones, for `read`."""
        return [KeyValueCache(rows, length, block) for block, _ in self._pairs()]

    def _pairs(self) -> list[tuple[ResidualBlock, CrossBlock]]:
        return list(zip(self.resblocks, self.cross_attn, strict=True))  # type: ignore[arg-type]  # what __init__ put there


def _read_image(cross: CrossBlock, x: Tensor, image_tokens: Tensor) -> Tensor:
    out: Tensor = cross(x, *cross.keys_and_values(image_tokens))
    return out
