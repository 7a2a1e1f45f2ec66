"""Text encoders of transformers as text towers: pooling and a projection around a module of that library.

Shapes: B batch, S sequence, W the encoder's width, D features. The encoder is built from a complete configuration of
ours, so nothing is ever fetched. Parameters are named as OpenCLIP names them: `transformer.*` the encoder, `proj.*`.
What this room leaves out: tokenizers (`tokenizer`), and the encoders' published weights without a CLIP around them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clip_core.config import HfTextConfig
from clip_core.errors import ConfigError
from clip_core.layers.block import pick_layers
from clip_core.towers.interface import TextTower
from clip_core.towers.locking import Group, unlock_last
from clip_core.towers.row_lengths import encode_unpadded

__all__ = ["HfTextTower"]

_logger = logging.getLogger(__name__)

# By model type: the configuration's name for the width, the path of the embeddings and of the list of layers.
_WIDTH = {"mt5": "d_model", "m2m_100": "d_model"}
_EMBEDDINGS = {"mt5": "embed_tokens", "m2m_100": "embed_tokens"}
_LAYERS = {"mt5": "block", "m2m_100": "layers", "modernbert": "layers"}

# Tables that transformers kept in state dicts until 4.31 and computes since: ids counted up, sines and cosines.
_COMPUTED = ("transformer.embeddings.position_ids", "transformer.embed_positions.weights")

# Learned tables of positions and segments, which OpenCLIP does not decay.
_NOT_DECAYED = ("position_embeddings", "token_type_embeddings", "relative_attention_bias")


class HfTextTower(TextTower):
    """Tokens (B, S) -> features (B, D) with a text encoder of transformers.

    Raises `ConfigError` where transformers is not installed.
    """

    def __init__(self, config: HfTextConfig, embed_dim: int) -> None:
        super().__init__()
        if config.projection == "none" and config.width != embed_dim:
            raise ConfigError(
                f"HfTextConfig.projection is 'none'; allowed: 'linear' or 'mlp', since the encoder's width "
                f"{config.width} is not embed_dim {embed_dim}."
            )
        self.config = config
        self.context_length = config.context_length
        self.vocab_size = config.vocab_size
        self.transformer = _encoder(config)
        self.proj = _projection(config, embed_dim)
        self._frequencies = {
            name: buffer.clone() for name, buffer in self.transformer.named_buffers() if name.endswith("inv_freq")
        }

    def reset_text_parameters(self) -> None:
        """Draw new weights: the encoder's as transformers does, the projection's as torch does."""
        # A fresh encoder, because an initialisation is only run in the constructor of some of them.
        self.transformer = _encoder(self.config)
        for layer in self.proj.modules():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()

    def text_features(self, tokens: Tensor) -> Tensor:
        """Token ids (B, S), int64, padding only behind a text, -> (B, D), not normalised."""
        return encode_unpadded(lambda rows: self._read(rows)[0], tokens, self.config.pad_id)

    def text_features_and_tokens(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The features (B, D) and the encoder's output (B, S, W), without its first position where `pool` is "cls"."""
        features, hidden = self._read(tokens)
        return features, hidden[:, 1:] if self.config.pool == "cls" else hidden

    def _read(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S) -> features (B, D), the encoder's output (B, S, W)."""
        self._keep_frequencies()
        seen = tokens != self.config.pad_id  # (B, S)
        output = self.transformer(input_ids=tokens, attention_mask=seen.long())
        hidden: Tensor = output.last_hidden_state
        pooled = self._pool(hidden, seen, getattr(output, "pooler_output", None))
        features: Tensor = self.proj(pooled)
        return features, hidden

    def _keep_frequencies(self) -> None:
        """Undo a conversion of rotary frequencies: bfloat16 turns position 200 by up to 0.3 radians off."""
        for name, exact in self._frequencies.items():
            buffer = self.transformer.get_buffer(name)
            if buffer.dtype != exact.dtype:
                path, _, leaf = name.rpartition(".")
                setattr(self.transformer.get_submodule(path), leaf, exact.to(buffer.device))

    def _pool(self, hidden: Tensor, seen: Tensor, pooler_output: Tensor | None) -> Tensor:
        """(B, S, W) and the mask of what is not padding (B, S) -> (B, W)."""
        if self.config.pool == "mean":
            weights = seen.unsqueeze(-1).to(hidden.dtype)
            return (hidden * weights).sum(dim=1) / weights.sum(dim=1)
        if self.config.pool == "max":
            return hidden.masked_fill(~seen.unsqueeze(-1), -torch.inf).amax(dim=1)
        if self.config.pool == "cls" and pooler_output is not None:
            return pooler_output
        return hidden[:, 0]

    def text_intermediates(self, tokens: Tensor, layers: Sequence[int] | None = None) -> list[Tensor]:
        """What leaves each block, (B, S, W), before a norm that the encoder has behind the last one."""
        wanted = pick_layers(len(self._layers()), layers)
        kept: list[Tensor] = []

        def keep(module: nn.Module, args: object, output: Any) -> None:
            kept.append(output[0] if isinstance(output, tuple) else output)

        hooks = [layer.register_forward_hook(keep) for layer in self._layers()]
        try:
            self._read(tokens)
        finally:
            for hook in hooks:
                hook.remove()
        return [kept[layer] for layer in wanted]

    def lock_text(self, unlocked_layers: int = 0, freeze_layer_norm: bool = True) -> None:
        """Freeze the embeddings and all but the last `unlocked_layers` layers; with 0 the whole encoder.

        As in OpenCLIP 3.3 the projection stays trainable, and with `unlocked_layers` of 1 or more what the encoder
        has behind its layers too (a last norm, BERT's pooling layer). Without `freeze_layer_norm` norms stay
        trainable, whatever the encoder calls them.
        """
        self.transformer.requires_grad_(unlocked_layers != 0)
        if unlocked_layers:
            unlock_last(self._encoder_groups(), unlocked_layers, "unlocked_layers")
        if not freeze_layer_norm:
            for name, parameter in self.transformer.named_parameters():
                # LayerNorm, layer_norm, final_layer_norm, attn_norm ...
                if any(part.lower().endswith("norm") for part in name.split(".")):
                    parameter.requires_grad_(True)

    def text_layer_groups(self, *, pooling_apart: bool = False) -> list[Group]:
        """The embeddings, each layer, and the projection with the encoder's own pooling layer where it has one.

        `pooling_apart` makes that layer a group of its own. `lock_text` counts the encoder's groups alone.
        """
        pooling = getattr(self.transformer, "pooler", None)
        pooled: list[nn.Module] = [pooling] if isinstance(pooling, nn.Module) else []
        head: list[nn.Module] = [] if isinstance(self.proj, nn.Identity) else [self.proj]
        last = [pooled, head] if pooling_apart else [[*pooled, *head]]
        return [*self._encoder_groups(), *(group for group in last if group)]

    def _encoder_groups(self) -> list[Group]:
        embeddings = getattr(self.transformer, _EMBEDDINGS.get(self.config.model_type, "embeddings"))
        return [[module] for module in (embeddings, *self._layers())]

    def set_text_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass, in training mode only, as transformers does."""
        # Recent releases call it activation checkpointing and warn about the other name.
        word = "activation" if hasattr(self.transformer, "activation_checkpointing_enable") else "gradient"
        if enable:
            getattr(self.transformer, f"{word}_checkpointing_enable")({"use_reentrant": False})
        else:
            getattr(self.transformer, f"{word}_checkpointing_disable")()

    def no_text_weight_decay(self) -> set[str]:
        """The learned tables of positions and segments."""
        return {
            f"{name}.{leaf}"
            for name, module in self.named_modules()
            if name.rpartition(".")[2] in _NOT_DECAYED
            for leaf, _ in module.named_parameters()
        }

    def adapt_text_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`tensors` without the tables that older versions of transformers saved and this one computes; logged."""
        dropped = [key for key in _COMPUTED if key in tensors]
        if dropped:
            _logger.debug("Left out %s of the checkpoint: the encoder computes it.", " and ".join(dropped))
        return {key: value for key, value in tensors.items() if key not in dropped}

    def _layers(self) -> nn.ModuleList:
        encoder = getattr(self.transformer, "encoder", self.transformer)
        layers = getattr(encoder, _LAYERS.get(self.config.model_type, "layer"))
        assert isinstance(layers, nn.ModuleList)
        return layers


def _projection(config: HfTextConfig, embed_dim: int) -> nn.Module:
    """(B, W) -> (B, D)."""
    if config.projection == "none":
        return nn.Identity()
    if config.projection == "linear":
        return nn.Linear(config.width, embed_dim, bias=False)
    hidden = (config.width + embed_dim) // 2
    return nn.Sequential(
        nn.Linear(config.width, hidden, bias=False), nn.GELU(), nn.Linear(hidden, embed_dim, bias=False)
    )


def _encoder(config: HfTextConfig) -> Any:
    """The module of transformers that `config` states, with weights that its constructor drew."""
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(
            f"This model's text tower is a {config.model_type} of the library transformers, which is not installed. "
            'Install it with pip install "clip-core[hf]".'
        ) from error
    values: dict[str, Any] = {
        **dict(config.settings),
        _WIDTH.get(config.model_type, "hidden_size"): config.width,
        "vocab_size": config.vocab_size,
        "pad_token_id": config.pad_id,
    }
    if config.model_type == "mt5":
        return transformers.MT5EncoderModel(transformers.MT5Config(**values)).encoder
    if config.model_type == "m2m_100":
        # The library's public classes come with a decoder, as large again.
        from transformers.models.m2m_100.modeling_m2m_100 import M2M100Encoder

        return M2M100Encoder(transformers.M2M100Config(**values))
    if config.model_type == "modernbert":
        return transformers.ModernBertModel(transformers.ModernBertConfig(**values))
    kind, made_of = {
        "bert": (transformers.BertConfig, transformers.BertModel),
        "roberta": (transformers.RobertaConfig, transformers.RobertaModel),
        "xlm-roberta": (transformers.XLMRobertaConfig, transformers.XLMRobertaModel),
    }[config.model_type]
    return made_of(kind(**values), add_pooling_layer=config.pool == "cls")
