"""What a CLIP model is, as data: one envelope, one record per kind of tower, final values and no inheritance.

Units: sizes in pixels or tokens, widths in features. The records are strict (see `schema`); `ClipConfig.to_json`
is what a bundle's `clip_config.json` holds. Names and their numbers are in `presets`.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from clip_core.schema import Schema

__all__ = [
    "Activation",
    "ClipConfig",
    "PreprocessConfig",
    "TextConfig",
    "TokenizerConfig",
    "VitConfig",
]

Activation = Literal["gelu", "quick_gelu"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class VitConfig(Schema):
    """A vision transformer with a class token, learned positions and a norm before the blocks (Radford et al. 2021)."""

    kind: ClassVar[str] = "vit"
    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    mlp_dim: int
    activation: Activation

    def check(self) -> None:
        _positive(self, "image_size", "patch_size", "width", "layers", "heads", "mlp_dim")
        self.require(self.image_size % self.patch_size == 0, "patch_size", f"a divisor of image_size {self.image_size}")
        self.require(self.width % self.heads == 0, "heads", f"a divisor of width {self.width}")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TextConfig(Schema):
    """A causal transformer over byte-pair tokens, pooled at the end-of-text token (Radford et al. 2021)."""

    kind: ClassVar[str] = "transformer"
    context_length: int
    vocab_size: int
    width: int
    layers: int
    heads: int
    mlp_dim: int
    activation: Activation

    def check(self) -> None:
        _positive(self, "vocab_size", "width", "layers", "heads", "mlp_dim")
        self.require(self.context_length >= 3, "context_length", "3 or more (start, one token, end)")
        self.require(self.width % self.heads == 0, "heads", f"a divisor of width {self.width}")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PreprocessConfig(Schema):
    """How an image becomes the (3, size, size) tensor that the image tower was trained on.

    `mean` and `std` are per RGB channel on a 0 to 1 scale. `resize_mode` "shortest" scales the shorter side to
    `size` and cuts the centre; "squash" scales both sides to `size` without keeping the aspect ratio.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bicubic", "bilinear"]
    resize_mode: Literal["shortest", "squash"]

    def check(self) -> None:
        _positive(self, "size")
        self.require(all(value > 0 for value in self.std), "std", "three numbers above 0")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerConfig(Schema):
    """Which tokenizer turns a text into (context_length,) ids; its vocabulary is package data of clip-core."""

    kind: ClassVar[str] = "clip_bpe"
    context_length: int

    def check(self) -> None:
        self.require(self.context_length >= 3, "context_length", "3 or more (start, one token, end)")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ClipConfig(Schema):
    """A whole model: two towers that meet in `embed_dim` features, and what its inputs must look like.

    `logit_scale` is the initial value of the learned scale in log space (ln(1/0.07) for CLIP); `logit_bias` the
    initial value of the learned bias, or None for a model without one.
    """

    embed_dim: int
    image: VitConfig
    text: TextConfig
    logit_scale: float
    logit_bias: float | None
    preprocess: PreprocessConfig
    tokenizer: TokenizerConfig

    def check(self) -> None:
        _positive(self, "embed_dim")
        self.require(
            self.preprocess.size == self.image.image_size,
            "preprocess",
            f"a size equal to the image tower's image_size {self.image.image_size}",
        )
        self.require(
            self.tokenizer.context_length == self.text.context_length,
            "tokenizer",
            f"a context_length equal to the text tower's {self.text.context_length}",
        )

    def with_activation(self, activation: Activation) -> ClipConfig:
        """This configuration with `activation` in both towers."""
        return dataclasses.replace(
            self,
            image=dataclasses.replace(self.image, activation=activation),
            text=dataclasses.replace(self.text, activation=activation),
        )


def _positive(config: Schema, *fields: str) -> None:
    for field in fields:
        config.require(getattr(config, field) > 0, field, "1 or more")
