"""The two-tower model: `encode_image`, `encode_text`, and the pair of them with the learned scale.

Shapes: B batch, S context length, D features. The state dict has the keys and shapes of OpenCLIP's: those of OpenAI's
in the flat layout, the text tower's under `text.` in the nested one. Building, loading and saving are in `building`,
`storage` and `bundle`; losses are in `kernels`; CoCa's decoder is in `coca`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_core.config import ClipConfig, TextConfig
from clip_core.errors import ConfigError
from clip_core.towers import ImageTower, TextTower, TextTransformer, build_image_tower, build_text_tower

__all__ = ["Clip", "ClipOutput", "FlatClip", "NestedClip", "assemble"]


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


class Clip(nn.Module):
    """A CLIP model (Radford et al. 2021). Make one with `clip_core.create_model` or `clip_core.load`.

    Its two kinds differ only in the names of the text tower's parameters: `FlatClip` and `NestedClip`.
    """

    config: ClipConfig
    visual: ImageTower
    context_length: int
    """Most tokens that a text may have."""
    vocab_size: int
    text_prefix: ClassVar[str] = "text."
    """What the names of the text tower's parameters begin with."""

    @property
    def text_tower(self) -> TextTower:
        """The module that encodes texts: this model itself in the flat layout."""
        raise NotImplementedError

    def _complete(self, config: ClipConfig) -> None:
        """Add what is not of the text tower, which exists already."""
        self.config = config
        self.visual = build_image_tower(config.image, config.embed_dim)
        self.logit_scale = nn.Parameter(torch.empty(()))
        self.logit_bias = nn.Parameter(torch.empty(())) if config.logit_bias is not None else None

    def reset_parameters(self) -> None:
        """Draw new weights from torch's global generator and set the scale and bias to their initial values."""
        self.text_tower.reset_text_parameters()
        self.visual.reset_parameters()
        nn.init.constant_(self.logit_scale, self.config.logit_scale)
        if self.logit_bias is not None and self.config.logit_bias is not None:
            nn.init.constant_(self.logit_bias, self.config.logit_bias)

    @property
    def dtype(self) -> torch.dtype:
        """Of the towers' weights, and so of the features; the scale and bias of the logits are always float32."""
        return next(self.visual.parameters()).dtype

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block of both towers in the backward pass instead of keeping what is inside it."""
        self.visual.set_grad_checkpointing(enable)
        self.text_tower.set_text_grad_checkpointing(enable)

    def lock_image_tower(self, unlocked_groups: int = 0, freeze_bn_stats: bool = False) -> None:
        """See `ImageTower.lock`."""
        self.visual.lock(unlocked_groups, freeze_bn_stats)

    def lock_text_tower(self, unlocked_layers: int = 0, freeze_layer_norm: bool = True) -> None:
        """See `TextTower.lock_text`."""
        self.text_tower.lock_text(unlocked_layers, freeze_layer_norm)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters with two dimensions or more that weight decay leaves alone: positions, tokens."""
        return {f"visual.{name}" for name in self.visual.no_weight_decay()} | {
            f"{self.text_prefix}{name}" for name in self.text_tower.no_text_weight_decay()
        }

    def adapt_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`tensors` of this layout with positions interpolated to this model's sizes; a change is logged."""
        image = {key.removeprefix("visual."): tensors[key] for key in tensors if key.startswith("visual.")}
        rest = {key: value for key, value in tensors.items() if not key.startswith("visual.")}
        text = {
            key.removeprefix(self.text_prefix): rest.pop(key) for key in list(rest) if key.startswith(self.text_prefix)
        }
        return {
            **rest,
            **{f"visual.{key}": value for key, value in self.visual.adapt_weights(image).items()},
            **{f"{self.text_prefix}{key}": value for key, value in self.text_tower.adapt_text_weights(text).items()},
        }

    def encode_image(self, images: Tensor, normalize: bool = False) -> Tensor:
        """Images (B, 3, size, size), preprocessed, any floating dtype -> features (B, D) in the weights' dtype.

        With `normalize` each row has length 1. Raises `ConfigError` for another shape or an integer dtype.
        """
        features: Tensor = self.visual(self._checked_images(images))
        return F.normalize(features, dim=-1) if normalize else features

    def encode_text(self, tokens: Tensor, normalize: bool = False) -> Tensor:
        """Token ids (B, S), int64, S at most the context length -> features (B, D).

        With `normalize` each row has length 1. Raises `ConfigError` for another shape or a floating dtype.
        """
        features = self.text_tower.text_features(self._checked_tokens(tokens))
        return F.normalize(features, dim=-1) if normalize else features

    def forward(self, images: Tensor, tokens: Tensor) -> ClipOutput:
        """Images (B, 3, size, size) and token ids (B, S) -> normalised features, scale and bias."""
        return ClipOutput(
            image_features=self.encode_image(images, normalize=True),
            text_features=self.encode_text(tokens, normalize=True),
            logit_scale=self.logit_scale.exp(),
            logit_bias=self.logit_bias,
        )

    def get_logits(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of every image for every text, (B_images, B_texts), and the transpose of it."""
        image_features, text_features, scale, bias = Clip.forward(self, images, tokens)  # a subclass may add to it
        per_image = scale * image_features @ text_features.T
        if bias is not None:
            per_image = per_image + bias
        return per_image, per_image.T

    def _checked_images(self, images: Tensor) -> Tensor:
        """`images` in the dtype of the weights; raises `ConfigError` for what `encode_image` does not take."""
        if not isinstance(images, Tensor):
            raise ConfigError(
                f"encode_image got {type(images).__name__}; allowed: a tensor (batch, 3, height, width). "
                "The transform that comes with the model makes one from a PIL image."
            )
        self.visual.check_images(images)
        if not images.is_floating_point():
            raise ConfigError(
                f"encode_image got {images.dtype}; allowed: a floating dtype, normalised by the model's transform."
            )
        return images.to(self.dtype)

    def _checked_tokens(self, tokens: Tensor) -> Tensor:
        """`tokens`; raises `ConfigError` for what `encode_text` does not take."""
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
        return tokens


class FlatClip(Clip, TextTransformer):  # type: ignore[misc]  # forward takes both inputs here
    """A CLIP model in OpenAI's layout: the text tower's parameters stand at the top level, beside `visual`."""

    text_prefix = ""

    def __init__(self, config: ClipConfig) -> None:
        assert isinstance(config.text, TextConfig)  # ClipConfig.check
        TextTransformer.__init__(self, config.text, config.embed_dim)
        self._complete(config)

    @property
    def text_tower(self) -> TextTower:
        """This model."""
        return self


class NestedClip(Clip):
    """A CLIP model whose text tower, of any kind, is the submodule `text`."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.text = build_text_tower(config.text, config.embed_dim)
        self.context_length = self.text.context_length
        self.vocab_size = self.text.vocab_size
        self._complete(config)

    @property
    def text_tower(self) -> TextTower:
        """`self.text`."""
        return self.text


def assemble(config: ClipConfig) -> Clip:
    """The model that `config` states, without values; `building.build` gives it some."""
    if config.layout == "flat":
        return FlatClip(config)
    return NestedClip(config)
