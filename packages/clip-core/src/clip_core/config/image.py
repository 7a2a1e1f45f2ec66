"""Image towers: a vision transformer, OpenAI's modified ResNet, or a model of timm."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from clip_core.config.values import Activation, Options, Size, positive, size_pair
from clip_core.schema import Schema

__all__ = ["AttentionPoolConfig", "ImageConfig", "NaFlexConfig", "ResNetConfig", "TimmConfig", "VitConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AttentionPoolConfig(Schema):
    """Learned queries that attend over a transformer's output (Yu et al. 2022, CoCa).

    "plain" is OpenCLIP's CoCa: one pooler, and the first query's output is the image feature. "parallel" and
    "cascade" are the paper's: a second pooler with one query, over the tokens or over the first pooler's output.
    """

    queries: int
    heads: int
    mode: Literal["plain", "parallel", "cascade"] = "plain"

    def check(self) -> None:
        positive(self, "queries", "heads")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class VitConfig(Schema):
    """A vision transformer with a class token (Radford et al. 2021, with the options that OpenCLIP's family uses).

    Where `patch_size` does not divide a side of `image_size`, the rest of the pixels at the right and the bottom is not
    seen, as with OpenCLIP.
    `pool` "token" reads the class token, "average" the mean of the patches. `pre_norm` is the norm before the blocks;
    `norm_after_pool` puts the last norm behind the pooling instead of before it (CLIPA). `layer_scale` is the initial
    value of a learned gain on each residual branch. `patch_dropout` is the share of patches left out in training,
    `drop_path` the chance that a sample goes round each branch of the last block (rising linearly from 0 at the first
    one) and `head_dropout` that of a feature before the projection; all three do nothing in evaluation. "sin_cos"
    positions are fixed and still part of the weights. `attention_pool` has its own norms, with torch's epsilon.
    `dense_pool` puts a layer with tanh between pooling and projection (BERT's pooler, which transformers' ViT has).
    """

    kind: ClassVar[str] = "vit"
    image_size: Size
    patch_size: int
    width: int
    layers: int
    heads: int
    mlp_dim: int
    activation: Activation
    pool: Literal["token", "average"] = "token"
    attention_pool: AttentionPoolConfig | None = None
    pre_norm: bool = True
    norm_after_pool: bool = False
    norm_eps: float = 1e-5
    layer_scale: float | None = None
    positions: Literal["learned", "sin_cos"] = "learned"
    patch_dropout: float = 0.0
    drop_path: float = 0.0
    head_dropout: float = 0.0
    dense_pool: bool = False

    def check(self) -> None:
        positive(self, "image_size", "patch_size", "width", "layers", "heads", "mlp_dim", "norm_eps")
        fits = min(size_pair(self.image_size)) >= self.patch_size
        self.require(fits, "image_size", f"sides of at least one patch, patch_size {self.patch_size}")
        self.require(self.width % self.heads == 0, "heads", f"a divisor of width {self.width}")
        if self.positions == "sin_cos":
            self.require(self.width % 4 == 0, "width", "a multiple of 4 with positions 'sin_cos'")
        for field in ("patch_dropout", "drop_path", "head_dropout"):
            self.require(0 <= getattr(self, field) < 1, field, "0 or more and less than 1")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ResNetConfig(Schema):
    """OpenAI's ResNet with a three-layer stem, anti-aliased strides and attention pooling (Radford et al. 2021).

    `layers` are the blocks of the four stages, `width` the channels of the first, `heads` those of the pooling.
    """

    kind: ClassVar[str] = "modified_resnet"
    image_size: Size
    layers: tuple[int, int, int, int]
    width: int
    heads: int

    def check(self) -> None:
        positive(self, "image_size", "layers", "width", "heads")
        fits = all(side % 32 == 0 for side in size_pair(self.image_size))
        self.require(fits, "image_size", "a multiple of 32, which is what the stages divide it by")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TimmConfig(Schema):
    """An image tower of timm, by its name there, with what OpenCLIP puts around it.

    `pool` is timm's `global_pool` ("" is the model's own). `projection` says where the features get their width:
    "trunk" in the model's own classifier layer, "linear" or "mlp" in a head of ours behind it, "none" nowhere (the
    model's own width is that of the features). `head_dropout` is the chance that a feature is dropped in that head,
    `drop_path` and `patch_dropout` are as in `VitConfig`, None where the model has none; `options` go to timm's
    constructor.
    """

    kind: ClassVar[str] = "timm"
    name: str
    image_size: Size
    pool: Literal["", "token", "avg", "map"]
    projection: Literal["trunk", "linear", "mlp", "none"]
    head_dropout: float = 0.0
    drop_path: float | None = None
    patch_dropout: float | None = None
    options: Options = ()

    def check(self) -> None:
        positive(self, "image_size")
        for field in ("head_dropout", "drop_path", "patch_dropout"):
            value = getattr(self, field)
            self.require(value is None or 0 <= value < 1, field, "0 or more and less than 1")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class NaFlexConfig(TimmConfig):
    """A transformer of timm over any number of patches, of images of any shape (NaFlexVit, after Dehghani et al. 2023).

    `patch_size` is in pixels. `max_patches` is the number of patches that an image keeping its shape is resized for;
    `image_size` that of the square which it is squashed to where a batch of one shape is wanted.
    """

    kind: ClassVar[str] = "naflex"
    patch_size: int
    max_patches: int

    def check(self) -> None:
        # `super()` without arguments finds the class before its slots were added.
        TimmConfig.check(self)
        positive(self, "patch_size", "max_patches")
        fits = all(side % self.patch_size == 0 for side in size_pair(self.image_size))
        self.require(fits, "patch_size", f"a divisor of image_size {self.image_size}")


ImageConfig = VitConfig | ResNetConfig | TimmConfig | NaFlexConfig
