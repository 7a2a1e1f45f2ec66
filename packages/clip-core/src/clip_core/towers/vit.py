"""The image tower of Radford et al. 2021 and its relatives: patches, a class token, transformer blocks, one projection.

Shapes: B batch, P patch side, N = (height // P) (width // P) patches, S = 1 + N tokens, Q queries, W width, D features.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from clip_core.config import VitConfig, size_pair
from clip_core.layers.block import Transformer, pick_layers
from clip_core.layers.drop import PatchDropout
from clip_core.layers.pool import AttentionPool
from clip_core.layers.positions import resize_grid, sin_cos_grid, square_grid, warn_of_grid
from clip_core.layers.reading import FirstPosition
from clip_core.towers.interface import ImageTower
from clip_core.towers.locking import Group, unlock_last

__all__ = ["VisionTransformer"]

log = logging.getLogger(__name__)

_POSITIONS = "positional_embedding"


class VisionTransformer(ImageTower):
    """Images (B, 3, height, width) -> features (B, D)."""

    def __init__(self, config: VitConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.image_size = size_pair(config.image_size)
        height, width = self.image_size
        self.grid = (height // config.patch_size, width // config.patch_size)
        """Rows and columns of patches."""
        rows, columns = height % config.patch_size, width % config.patch_size
        if rows or columns:
            log.info(
                "Patches of %d do not divide images of %dx%d: %d pixels at the bottom and %d at the right are not seen",
                *(config.patch_size, height, width, rows, columns),
            )
        self.conv1 = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(config.width))
        self.positional_embedding = nn.Parameter(
            torch.empty(self.grid[0] * self.grid[1] + 1, config.width), requires_grad=config.positions == "learned"
        )
        self.patch_dropout = PatchDropout(config.patch_dropout) if config.patch_dropout else nn.Identity()
        self.ln_pre = nn.LayerNorm(config.width, eps=config.norm_eps) if config.pre_norm else nn.Identity()
        self.transformer = Transformer(
            config.width,
            config.layers,
            config.heads,
            config.mlp_dim,
            config.activation,
            causal=False,
            norm_eps=config.norm_eps,
            layer_scale=config.layer_scale,
            drop_path=config.drop_path,
        )
        pool, pooled_width = config.attention_pool, config.width
        self.attn_pool = self.attn_pool_contrastive = None
        if pool is not None:
            self.attn_pool = AttentionPool(embed_dim, config.width, pool.heads, pool.queries)
            if pool.mode != "plain":
                self.attn_pool_contrastive = AttentionPool(embed_dim, config.width, pool.heads, 1)
            pooled_width = embed_dim
        self.ln_post = nn.LayerNorm(pooled_width, eps=config.norm_eps)
        self.pooler = nn.Linear(pooled_width, pooled_width) if config.dense_pool else None
        self.head_dropout = nn.Dropout(config.head_dropout) if config.head_dropout else nn.Identity()
        self.proj = nn.Parameter(torch.empty(pooled_width, embed_dim))

    def reset_parameters(self) -> None:
        """Draw new weights with the distributions that OpenCLIP's recipes were tuned for.

        OpenAI published no initialisation for this tower; OpenCLIP trains from torch's defaults for the blocks and
        width^-1/2 normals for the rest.
        """
        self.conv1.reset_parameters()
        self.transformer.reset_parameters()
        for part in (self.ln_pre, self.ln_post, self.attn_pool, self.attn_pool_contrastive):
            if isinstance(part, nn.LayerNorm | AttentionPool):
                part.reset_parameters()
        if self.pooler is not None:
            self.pooler.reset_parameters()
        for parameter in (self.class_embedding, self.positional_embedding, self.proj):
            nn.init.normal_(parameter, std=self.config.width**-0.5)
        if self.config.positions == "sin_cos":
            with torch.no_grad():
                self.positional_embedding.copy_(sin_cos_grid(self.grid, self.config.width))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, height, width) in the dtype of the weights -> (B, D), not normalised."""
        x = self._embed(images)
        if self.config.attention_pool is None and self.config.pool == "token":
            # Only the class token is projected, so only it needs the end of the last block and the last norm.
            return self._project(self.ln_post(self.transformer.read(x, FirstPosition())[:, 0]))
        return self._project(self._pool(self.transformer(x))[0])

    def features_and_tokens(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The features (B, D) and the tokens beside them.

        These are the patches (B, N, W), behind the last norm unless that stands behind the pooling; with an attention
        pool its queries, (B, Q - 1, D) without the first one where that is the feature, else (B, Q, D).
        """
        pooled, tokens = self._pool(self.transformer(self._embed(images)))
        return self._project(pooled), tokens

    def intermediates(self, images: Tensor, layers: Sequence[int] | None = None) -> list[Tensor]:
        """What leaves each block, (B, S, W), the class token first."""
        return self.transformer.intermediates(self._embed(images), layers)

    def features_and_intermediates(
        self, images: Tensor, layers: Sequence[int] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """The features (B, D) and what leaves each block, in one pass."""
        wanted = pick_layers(len(self.transformer.resblocks), layers)
        *outputs, last = self.transformer.intermediates(self._embed(images), [*wanted, -1])
        return self._project(self._pool(last)[0]), outputs

    def lock(self, unlocked_groups: int = 0, freeze_bn_stats: bool = False) -> None:
        """Freeze all but the last `unlocked_groups` groups; there are no batch norms to freeze.

        The groups: what is before the blocks, each block but the last, the last block with the last norm, the
        projection. An attention pool is in none of them and stays frozen, as with OpenCLIP; a fixed table of positions
        stays fixed.
        """
        unlock_last(self.layer_groups(), unlocked_groups, "unlocked_groups", outside=self.parameters())
        if self.config.positions == "sin_cos":
            self.positional_embedding.requires_grad_(False)

    def layer_groups(self) -> list[Group]:
        """The groups of `lock`."""
        *blocks, last = self.transformer.resblocks
        groups: list[Group] = [[self.conv1, self.class_embedding, self.positional_embedding, self.ln_pre]]
        groups += [[block] for block in blocks]
        return [*groups, [last, self.ln_post], [self.proj] if self.pooler is None else [self.pooler, self.proj]]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping what is inside it."""
        self.transformer.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """The positions and the class token."""
        return {_POSITIONS, "class_embedding"}

    def adapt_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`tensors` with positions of a square grid interpolated to this tower's, bicubic with antialias; logged."""
        adapted = dict(tensors)
        table = adapted.get(_POSITIONS)
        rows, width = self.positional_embedding.shape
        if table is None or table.ndim != 2 or table.shape[1] != width:
            return adapted
        old = square_grid(table.shape[0] - 1)
        if old is not None and table.shape[0] != rows:
            log.info("Interpolating the positions of the image tower from %dx%d to %dx%d", *old, *self.grid)
            adapted[_POSITIONS] = resize_grid(table, old, self.grid)
        elif table.shape[0] == rows:
            warn_of_grid(rows - 1, old, self.grid)
        return adapted

    def _embed(self, images: Tensor) -> Tensor:
        """(B, 3, height, width) -> (B, S, W), fewer tokens where patches are dropped."""
        patches = self.conv1(images).flatten(2).transpose(1, 2)  # (B, N, W)
        start = self.class_embedding.expand(patches.shape[0], 1, -1)
        x = torch.cat([start, patches], dim=1) + self.positional_embedding
        out: Tensor = self.ln_pre(self.patch_dropout(x))
        return out

    def _pool(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, W) -> what is projected, (B, W) or (B, D), and the tokens beside it."""
        pool = self.config.attention_pool
        if self.attn_pool_contrastive is not None and self.attn_pool is not None and pool is not None:
            x = self.ln_post(x)
            tokens: Tensor = self.attn_pool(x)
            return self.attn_pool_contrastive(tokens if pool.mode == "cascade" else x)[:, 0], tokens
        if self.attn_pool is not None:
            return self._read(self.ln_post(self.attn_pool(x)))
        if self.config.norm_after_pool:
            pooled, tokens = self._read(x)
            return self.ln_post(pooled), tokens
        return self._read(self.ln_post(x))

    def _read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        tokens = x[:, 1:]
        return (x[:, 0] if self.config.pool == "token" else tokens.mean(dim=1)), tokens

    def _project(self, pooled: Tensor) -> Tensor:
        if self.pooler is not None:
            pooled = torch.tanh(self.pooler(pooled))
        out: Tensor = self.head_dropout(pooled) @ self.proj
        return out
