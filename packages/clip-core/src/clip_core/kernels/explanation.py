"""What each part of a model runs with on a device, and why, in words: the choices of `dispatch`, asked beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import nn

from clip_core.config import (
    ClipConfig,
    DecoderConfig,
    HfTextConfig,
    ImageConfig,
    ModernTextConfig,
    ResNetConfig,
    TextConfig,
    TextTowerConfig,
    VitConfig,
    size_pair,
)
from clip_core.errors import ConfigError
from clip_core.kernels import dispatch
from clip_core.kernels.dispatch import Choice
from clip_core.kernels.measured import Operation

__all__ = ["HasModel", "explain"]

_ARCHITECTURES = tuple(
    f"sm_{capability}" for capability in (50, 52, 60, 61, 70, 75, 80, 86, 87, 89, 90, 100, 103, 110, 120, 121)
)


class HasModel(Protocol):
    """A bundle: a model with what makes its inputs."""

    @property
    def model(self) -> nn.Module:
        """A model of this package."""


def explain(
    model: nn.Module | ClipConfig | HasModel,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    training: bool = False,
    architecture: str | None = None,
) -> str:
    """One line for each part of `model` that has a choice: its shape, what it runs with, and the reason.

    Args:
        model: a model of this package, its bundle, or its configuration.
        device: where it runs; None is where a model's weights are, the CPU for a configuration.
        dtype: what activations are: that of the weights, which None asks a model for (float32 for a configuration), or
            under autocast that of autocast.
        training: forward and backward, with the losses; else inference.
        architecture: a GPU that need not be here, "sm_90" for an H100 or H200, in place of `device`.

    Raises:
        ConfigError: an architecture that NVIDIA does not have, a device that is not here, a dtype that is none of
            torch's, or a model without a configuration of this package.
    """
    if not isinstance(model, nn.Module | ClipConfig) and isinstance(getattr(model, "model", None), nn.Module):
        model = model.model
    config = model if isinstance(model, ClipConfig) else getattr(model, "config", None)
    if not isinstance(config, ClipConfig):
        raise ConfigError(
            f"explain got {type(model).__name__}; allowed: a model of clip_core, its bundle or its ClipConfig."
        )
    weight = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise ConfigError(f"dtype is {dtype!r}; allowed: a dtype of torch, as torch.bfloat16.")
    dtype = dtype or (torch.float32 if weight is None else weight.dtype)
    asker = _Asker(*_place(device or ("cpu" if weight is None else weight.device), architecture), dtype, training)
    lines = [*_image(asker, config.image), *_text(asker, config.text), *_decoder(asker, config)]
    if training:
        name = "clip_loss" if config.logit_bias is None else "siglip_loss"
        lines.append(_line(name, asker.loss()))
    direction = "forward and backward" if training else "forward"
    return "\n".join([f"On {asker.where} in {str(dtype).removeprefix('torch.')}, {direction}:", *lines])


class _Asker:
    """Asks `dispatch` for one device, dtype and direction."""

    def __init__(self, where: str, blocked: str | None, dtype: torch.dtype, training: bool) -> None:
        self.where, self.blocked, self.dtype, self.training = where, blocked, dtype, training

    def operation(self, operation: Operation, channels: int = 0, longest: int = 0, causal: bool = False) -> Choice:
        if self.blocked:
            return self._blocked(self.blocked)
        return dispatch.choose(
            self.where,
            operation,
            self.dtype,
            training=self.training,
            channels=channels,
            longest=longest,
            causal=causal,
        )

    def loss(self) -> Choice:
        return self._blocked(self.blocked) if self.blocked else dispatch.choose_loss(self.where, self.dtype)

    @staticmethod
    def _blocked(reason: str) -> Choice:
        backend = dispatch.forced_backend()
        return Choice("torch", reason) if backend is None else dispatch.forced(backend, reason)


def _place(device: str | torch.device, architecture: str | None) -> tuple[str, str | None]:
    """The name of a place, and why no program runs there although its name does not say so."""
    if architecture is not None:
        if architecture not in _ARCHITECTURES:
            raise ConfigError(f"architecture is {architecture!r}; allowed: {', '.join(_ARCHITECTURES)}.")
        return architecture, None
    try:
        device = torch.device(device)
        if device.type != "cuda":
            return device.type, None
        major, minor = torch.cuda.get_device_capability(device)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise ConfigError(
            f"device is {str(device)!r}, which torch does not find here; allowed: cpu, or a GPU of this machine. For "
            "another GPU give its architecture, 'sm_90' for example."
        ) from error
    return f"sm_{major}{minor}", dispatch.why_no_triton(device)


def _image(asker: _Asker, config: ImageConfig) -> Iterator[str]:
    if not isinstance(config, VitConfig):
        resnet = isinstance(config, ResNetConfig)
        reason = "convolutions, and one query for each image" if resnet else "its layers are timm's own"
        yield _line("image tower", Choice("torch", reason))
        return
    height, width = size_pair(config.image_size)
    tokens = 1 + (height // config.patch_size) * (width // config.patch_size)
    choice = asker.operation("attention", config.width // config.heads, tokens)
    yield _line(f"image attention, {_shape(tokens, config)}", choice)
    if config.pool == "token" and config.attention_pool is None:
        yield _line("image attention, last layer", Choice("torch", "one query for each image"))
    if config.activation == "quick_gelu":
        yield _line("image activation quick_gelu", asker.operation("quick_gelu"))


def _text(asker: _Asker, config: TextTowerConfig) -> Iterator[str]:
    if isinstance(config, HfTextConfig | ModernTextConfig):
        reason = "transformers' own" if isinstance(config, HfTextConfig) else "queries and keys are rotated first"
        yield _line("text attention", Choice("torch", reason))
        return
    channels, tokens = config.width // config.heads, config.context_length
    if config.class_token:
        yield _line(f"text attention, {_shape(tokens + 1, config)}", Choice("torch", "it has a mask"))
    else:
        choice = asker.operation("attention", channels, tokens, config.causal)
        yield _line(f"text attention, {_shape(tokens, config)}", choice)
    if config.causal and not config.class_token:
        choice = asker.operation("packed_attention", channels, tokens, config.causal)
        yield _line(f"text attention, packed, {_shape(tokens, config, 'up to ')}", choice)
    if config.activation == "quick_gelu":
        yield _line("text activation quick_gelu", asker.operation("quick_gelu"))


def _decoder(asker: _Asker, config: ClipConfig) -> Iterator[str]:
    if config.decoder is not None:
        part = config.decoder
        tokens = part.context_length - 1
        choice = asker.operation("attention", part.width // part.heads, tokens, True)
        yield _line(f"decoder attention, {_shape(tokens, part)}", choice)
        yield _line("decoder attention to the image", Choice("torch", "queries and keys are of different sequences"))


def _shape(tokens: int, config: VitConfig | TextConfig | DecoderConfig, most: str = "") -> str:
    return f"{most}{tokens} tokens, {config.heads} heads of {config.width // config.heads}"


def _line(part: str, choice: Choice) -> str:
    return f"  {part}: {choice.backend} ({choice.reason})"
