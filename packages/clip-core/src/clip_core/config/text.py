"""Text towers, and the decoder that CoCa puts behind both."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from clip_core.config.values import Activation, Options, positive
from clip_core.schema import Schema

__all__ = ["DecoderConfig", "HfTextConfig", "ModernTextConfig", "TextConfig", "TextTowerConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TextConfig(Schema):
    """A transformer over tokens with learned positions (Radford et al. 2021, with OpenCLIP's options).

    `pool` says which position is the feature: "highest_id" the first of the highest id in the row (OpenAI's end of
    text), "eos" the first `eos_id`, "first", "last". `causal` lets a position see only itself and what is before it.
    `class_token` appends a learned token that sees all but padding (`pad_id`) and is the feature (CoCa); `pool` is
    then not used. `projection` maps the width to the features, without or with a bias, or not at all.
    """

    kind: ClassVar[str] = "transformer"
    context_length: int
    vocab_size: int
    width: int
    layers: int
    heads: int
    mlp_dim: int
    activation: Activation
    causal: bool = True
    pool: Literal["highest_id", "eos", "first", "last"] = "highest_id"
    eos_id: int | None = None
    pad_id: int = 0
    class_token: bool = False
    projection: Literal["linear", "linear_bias", "none"] = "linear"
    norm_eps: float = 1e-5
    layer_scale: float | None = None

    def check(self) -> None:
        positive(self, "vocab_size", "width", "layers", "heads", "mlp_dim", "norm_eps")
        self.require(self.context_length >= 3, "context_length", "3 or more (start, one token, end)")
        self.require(self.width % self.heads == 0, "heads", f"a divisor of width {self.width}")
        self.require((self.eos_id is None) != (self.pool == "eos"), "eos_id", "an id with pool 'eos', else None")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class HfTextConfig(Schema):
    """A text encoder of transformers, as its `model_type` and the final values of its configuration.

    `pool` "mean" and "max" run over what is not padding, "cls" reads the first position. `projection` maps the
    encoder's width to the features: one layer, two with a GELU between them, or none. Needs the extra `hf`.
    """

    kind: ClassVar[str] = "hf"
    model_type: Literal["roberta", "xlm-roberta", "mt5", "m2m_100", "modernbert", "bert"]
    settings: Options
    width: int
    context_length: int
    vocab_size: int
    pad_id: int
    pool: Literal["mean", "cls", "max"]
    projection: Literal["linear", "mlp", "none"]

    def check(self) -> None:
        positive(self, "width", "vocab_size")
        self.require(self.context_length >= 3, "context_length", "3 or more (start, one token, end)")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ModernTextConfig(Schema):
    """OpenCLIP's 2026 text tower: rotary positions, gated linear units, RMS norm, gated attention, masked pooling.

    `pool` "eos" reads the first `eos_id`, "map" attends over the tokens with one learned query; padding (`pad_id`)
    is never seen.
    """

    kind: ClassVar[str] = "modern"
    context_length: int
    vocab_size: int
    width: int
    layers: int
    heads: int
    mlp_dim: int
    causal: bool
    pool: Literal["eos", "map", "mean"]
    eos_id: int
    pad_id: int
    gated_attention: bool
    query_key_norm: bool
    norm_eps: float
    rope_theta: float = 10_000.0

    def check(self) -> None:
        positive(self, "vocab_size", "width", "layers", "heads", "mlp_dim", "norm_eps", "rope_theta")
        self.require(self.context_length >= 3, "context_length", "3 or more (start, one token, end)")
        self.require(self.width % (2 * self.heads) == 0, "heads", f"heads of even width in {self.width}")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DecoderConfig(Schema):
    """CoCa's multimodal decoder: causal blocks, each followed by one that attends to the image (Yu et al. 2022)."""

    kind: ClassVar[str] = "decoder"
    context_length: int
    vocab_size: int
    width: int
    layers: int
    heads: int
    mlp_dim: int
    activation: Activation

    def check(self) -> None:
        positive(self, "context_length", "vocab_size", "width", "layers", "heads", "mlp_dim")
        self.require(self.width % self.heads == 0, "heads", f"a divisor of width {self.width}")


TextTowerConfig = TextConfig | HfTextConfig | ModernTextConfig
