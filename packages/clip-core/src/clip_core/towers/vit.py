"""The image tower of Radford et al. 2021: patches, a class token, a norm before the blocks, one projection.

Shapes: B batch, P patch side, G = image side / P, S = 1 + G^2 tokens, W width, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clip_core.config import VitConfig, size_pair
from clip_core.layers.block import Transformer
from clip_core.towers.interface import ImageTower

__all__ = ["VisionTransformer"]


class VisionTransformer(ImageTower):
    """Images (B, 3, size, size) -> features (B, D), read off the class token."""

    def __init__(self, config: VitConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.image_size = size_pair(config.image_size)
        height, width = self.image_size
        patches = (height // config.patch_size) * (width // config.patch_size)
        self.conv1 = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(config.width))
        self.positional_embedding = nn.Parameter(torch.empty(patches + 1, config.width))
        self.ln_pre = nn.LayerNorm(config.width)
        self.transformer = Transformer(
            config.width, config.layers, config.heads, config.mlp_dim, config.activation, causal=False
        )
        self.ln_post = nn.LayerNorm(config.width)
        self.proj = nn.Parameter(torch.empty(config.width, embed_dim))

    def reset_parameters(self) -> None:
        """Draw new weights with the distributions that OpenCLIP's recipes were tuned for.

        OpenAI published no initialisation for this tower; OpenCLIP trains from torch's defaults for the blocks and
        width^-1/2 normals for the rest.
        """
        self.conv1.reset_parameters()
        self.ln_pre.reset_parameters()
        self.transformer.reset_parameters()
        self.ln_post.reset_parameters()
        for parameter in (self.class_embedding, self.positional_embedding, self.proj):
            nn.init.normal_(parameter, std=self.config.width**-0.5)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, size, size) in the dtype of the weights -> (B, D), not normalised."""
        patches = self.conv1(images).flatten(2).transpose(1, 2)  # (B, G^2, W)
        start = self.class_embedding.expand(patches.shape[0], 1, -1)
        x = torch.cat([start, patches], dim=1) + self.positional_embedding
        x = self.transformer(self.ln_pre(x))
        # Only the class token is projected, so only it needs the last norm.
        out: Tensor = self.ln_post(x[:, 0]) @ self.proj
        return out
