"""The two-tower model: `encode_image`, `encode_text`, and the pair of them with the learned scale.

Shapes: B batch, S context length, D features. The state dict has the keys and shapes of OpenCLIP's, which are those
of OpenAI's. Building, loading and saving are in `bundle`; losses are in `kernels`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_core.config import ClipConfig
from clip_core.errors import ConfigError
from clip_core.towers.text import TextTower
from clip_core.towers.vit import VisionTransformer

__all__ = ["Clip", "ClipOutput"]


class ClipOutput(NamedTuple):
    """What a forward pass gives: L2-normalised features and the scale and bias of their logits."""

    image_features: Tensor
    """(B, D), each row of length 1."""
    text_features: Tensor
    """(B, D), each row of length 1."""
    logit_scale: Tensor
    """Scalar, already exponentiated: logits are `logit_scale * image_features @ text_features.T`."""
    logit_bias: Tensor | None
    """Scalar added to the logits, or None for a model without one."""


class Clip(TextTower):
    """A CLIP model (Radford et al. 2021). Make one with `clip_core.create_model` or `clip_core.load`."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__(config.text, config.embed_dim)
        self.config = config
        self.visual = VisionTransformer(config.image, config.embed_dim)
        self.logit_scale = nn.Parameter(torch.empty(()))
        self.logit_bias = nn.Parameter(torch.empty(())) if config.logit_bias is not None else None

    def reset_parameters(self) -> None:
        """Draw new weights from torch's global generator and set the scale and bias to their initial values."""
        self.reset_text_parameters()
        self.visual.reset_parameters()
        nn.init.constant_(self.logit_scale, self.config.logit_scale)
        if self.logit_bias is not None and self.config.logit_bias is not None:
            nn.init.constant_(self.logit_bias, self.config.logit_bias)

    @property
    def dtype(self) -> torch.dtype:
        """Of the towers' weights, and so of the features; the scale and bias of the logits are always float32."""
        return self.text_projection.dtype

    def encode_image(self, images: Tensor, normalize: bool = False) -> Tensor:
        """Images (B, 3, size, size), preprocessed, any floating dtype -> features (B, D) in the weights' dtype.

        With `normalize` each row has length 1. Raises `ConfigError` for another shape or an integer dtype.
        """
        size = self.visual.image_size
        if not isinstance(images, Tensor):
            raise ConfigError(
                f"encode_image got {type(images).__name__}; allowed: a tensor (batch, 3, {size[0]}, {size[1]}). "
                "The transform that comes with the model makes one from a PIL image."
            )
        if images.ndim != 4 or images.shape[1:] != (3, *size):
            raise ConfigError(
                f"encode_image got a tensor of shape {tuple(images.shape)}; allowed: (batch, 3, {size[0]}, {size[1]}). "
                "Use the transform that comes with the model."
            )
        if not images.is_floating_point():
            raise ConfigError(
                f"encode_image got {images.dtype}; allowed: a floating dtype, normalised by the model's transform."
            )
        features: Tensor = self.visual(images.to(self.dtype))
        return F.normalize(features, dim=-1) if normalize else features

    def encode_text(self, tokens: Tensor, normalize: bool = False) -> Tensor:
        """Token ids (B, S), int64, S at most the context length -> features (B, D).

        With `normalize` each row has length 1. Raises `ConfigError` for another shape or a floating dtype.
        """
        if not isinstance(tokens, Tensor):
            raise ConfigError(
                f"encode_text got {type(tokens).__name__}; allowed: a tensor of token ids. "
                "The tokenizer that comes with the model makes one from strings."
            )
        if tokens.ndim != 2 or not 0 < tokens.shape[1] <= self.context_length:
            raise ConfigError(
                f"encode_text got a tensor of shape {tuple(tokens.shape)}; allowed: (batch, up to "
                f"{self.context_length}). Use the tokenizer that comes with the model."
            )
        if tokens.is_floating_point() or tokens.dtype == torch.bool:
            raise ConfigError(f"encode_text got {tokens.dtype}; allowed: token ids as torch.int64.")
        features = self.text_features(tokens)
        return F.normalize(features, dim=-1) if normalize else features

    def forward(self, images: Tensor, tokens: Tensor) -> ClipOutput:  # type: ignore[override]  # takes both inputs
        """Images (B, 3, size, size) and token ids (B, S) -> normalised features, scale and bias."""
        return ClipOutput(
            image_features=self.encode_image(images, normalize=True),
            text_features=self.encode_text(tokens, normalize=True),
            logit_scale=self.logit_scale.exp(),
            logit_bias=self.logit_bias,
        )

    def get_logits(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of every image for every text, (B_images, B_texts), and the transpose of it."""
        image_features, text_features, scale, bias = self(images, tokens)
        per_image = scale * image_features @ text_features.T
        if bias is not None:
            per_image = per_image + bias
        return per_image, per_image.T
