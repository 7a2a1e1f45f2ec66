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
    `class_token` appends a learned token that is the feature (CoCa), under a padding mask (`pad_id`) that is one
    position late, as that of the published weights; `pool` is then not used. `projection` maps the width to the
    features, without or with a bias, or not at all.
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
        for field, value in (("eos_id", self.eos_id or 0), ("pad_id", self.pad_id)):
            self.require(0 <= value < self.vocab_size, field, f"an id below vocab_size {self.vocab_size}")


# What a configuration of transformers must state beside the fields of `HfTextConfig`, by model type: all that its
# encoder is built from, so that a default which a release changes cannot change a model of ours.
_BERT_SETTINGS = (
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "type_vocab_size",
    "layer_norm_eps",
    "initializer_range",
)
_HF_SETTINGS: dict[str, tuple[str, ...]] = {
    "bert": _BERT_SETTINGS,
    "roberta": _BERT_SETTINGS,
    "xlm-roberta": _BERT_SETTINGS,
    "mt5": (
        "num_layers",
        "num_heads",
        "d_kv",
        "d_ff",
        "feed_forward_proj",
        "relative_attention_num_buckets",
        "relative_attention_max_distance",
        "dropout_rate",
        "layer_norm_epsilon",
        "initializer_factor",
    ),
    "m2m_100": (
        "encoder_layers",
        "encoder_attention_heads",
        "encoder_ffn_dim",
        "activation_function",
        "dropout",
        "attention_dropout",
        "activation_dropout",
        "encoder_layerdrop",
        "max_position_embeddings",
        "scale_embedding",
        "init_std",
    ),
    "modernbert": (
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "hidden_activation",
        "max_position_embeddings",
        "global_attn_every_n_layers",
        "global_rope_theta",
        "local_attention",
        "local_rope_theta",
        "norm_eps",
        "norm_bias",
        "attention_bias",
        "attention_dropout",
        "embedding_dropout",
        "mlp_bias",
        "mlp_dropout",
        "initializer_range",
        "initializer_cutoff_factor",
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class HfTextConfig(Schema):
    """A text encoder of transformers, as its `model_type` and the final values of its configuration.

    `settings` are named as in transformers' configuration class and complete; sizes that this record has as a field
    of its own are not repeated there. `pool` "mean" and "max" run over what is not padding (`pad_id`), "first" reads
    the first position, "cls" does so through the dense layer and tanh that BERT and RoBERTa have for it (the other
    types have none). `projection` maps the encoder's width to the features, without a bias: one layer, two with a
    GELU between them, or none. Needs the extra `hf`.
    """

    kind: ClassVar[str] = "hf"
    model_type: Literal["roberta", "xlm-roberta", "mt5", "m2m_100", "modernbert", "bert"]
    settings: Options
    width: int
    context_length: int
    vocab_size: int
    pad_id: int
    pool: Literal["mean", "cls", "max", "first"]
    projection: Literal["linear", "mlp", "none"]

    def check(self) -> None:
        positive(self, "width", "vocab_size")
        self.require(self.context_length >= 3, "context_length", "3 or more (start, one token, end)")
        self.require(0 <= self.pad_id < self.vocab_size, "pad_id", f"an id below vocab_size {self.vocab_size}")
        wanted = _HF_SETTINGS[self.model_type]
        names = sorted(name for name, _ in self.settings)
        self.require(names == sorted(wanted), "settings", f"for {self.model_type} exactly {', '.join(wanted)}")
        if "type_vocab_size" in wanted:
            # RoBERTa counts positions from the one after `pad_id`, since fairseq kept a row for each special id.
            table = dict(self.settings)["max_position_embeddings"]
            skipped = 0 if self.model_type == "bert" else self.pad_id + 1
            assert isinstance(table, int)
            self.require(
                self.context_length <= table - skipped,
                "context_length",
                f"at most {table - skipped}, for max_position_embeddings {table}",
            )


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
        for field in ("eos_id", "pad_id"):
            self.require(
                0 <= getattr(self, field) < self.vocab_size, field, f"an id below vocab_size {self.vocab_size}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DecoderConfig(Schema):
    """CoCa's multimodal decoder: causal blocks, each followed by one that attends to the image (Yu et al. 2022).

    Its width is that of both towers' tokens. `start_id` begins a caption, `end_id` ends it, `pad_id` fills what is
    behind: ids of the tokenizer, whose vocabulary may be larger than the `vocab_size` ids that the decoder can choose.
    """

    kind: ClassVar[str] = "decoder"
    context_length: int
    vocab_size: int
    width: int
    layers: int
    heads: int
    mlp_dim: int
    activation: Activation
    start_id: int
    end_id: int
    pad_id: int

    def check(self) -> None:
        positive(self, "context_length", "vocab_size", "width", "layers", "heads", "mlp_dim")
        self.require(self.width % self.heads == 0, "heads", f"a divisor of width {self.width}")
        for field in ("start_id", "end_id", "pad_id"):
            self.require(0 <= getattr(self, field) < self.vocab_size, field, f"an id below {self.vocab_size}")


TextTowerConfig = TextConfig | HfTextConfig | ModernTextConfig
