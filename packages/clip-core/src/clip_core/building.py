"""From a configuration to a model with weights, holding each of them in memory once.

A model is laid out with parameters that nothing is written to. Those of a file are then put in their place as they are
(memory-mapped where the format allows it); only a model without a file draws random ones.
"""

from __future__ import annotations

import os
from typing import Literal

import torch

from clip_core.coca import CoCa
from clip_core.config import ClipConfig
from clip_core.convert.checkpoint import Checkpoint
from clip_core.convert.reading import open_file
from clip_core.device import resolve_device
from clip_core.errors import ConfigError
from clip_core.mapping import MappedPages
from clip_core.model import Clip, assemble
from clip_core.towers.undrawn import parameters_to_meta, undrawn
from clip_core.weights import load_weights

__all__ = ["DTYPES", "Precision", "build", "lay_out"]

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def build(
    config: ClipConfig,
    weights: str | os.PathLike[str] | Checkpoint | None = None,
    *,
    precision: Precision = "fp32",
    device: str | torch.device = "cpu",
) -> Clip:
    """The model that `config` states, in evaluation mode, with the weights of a file or freshly drawn ones.

    Args:
        config: what to build.
        weights: a checkpoint, or a file in a layout that `convert` reads; None draws weights from torch's global
            generator. Whether a checkpoint's own configuration is `config` is the caller's affair.
        precision: dtype of the parameters. The scale and bias of the logits stay in float32.
        device: "meta" gives the layout alone, without memory and without values; no weights are read.

    Raises:
        ConfigError: unknown precision, or a device that is not there.
        CheckpointMismatch: the file cannot be read or does not fit.
    """
    if not isinstance(precision, str) or precision not in DTYPES:
        raise ConfigError(
            f"precision is {precision!r}; allowed: {', '.join(DTYPES)}. Mixed precision ('amp') is a way of running "
            "a fp32 model: torch.autocast, or --precision of clip-train."
        )
    device = resolve_device(device, meta=True)
    model = _unwritten(config)
    if device.type == "meta":
        parameters_to_meta(model)
        model.to(device)  # buffers have values until then
    elif weights is not None:
        held = weights if isinstance(weights, Checkpoint) else open_file(weights)
        load_weights(model, model.adapt_weights(held.tensors(config)), held.path)
    else:
        with torch.no_grad():
            model.reset_parameters()
    _convert(model, device, DTYPES[precision])
    return model.eval()


def lay_out(config: ClipConfig) -> Clip:
    """The model with every parameter on the meta device; its buffers, which the layout determines, have values."""
    model = _unwritten(config)
    parameters_to_meta(model)
    return model


def _unwritten(config: ClipConfig) -> Clip:
    """The model with memory for each parameter that nothing was written to, and so takes no room yet."""
    with undrawn():
        return assemble(config) if config.decoder is None else CoCa(config)


def _convert(model: Clip, device: torch.device, dtype: torch.dtype) -> None:
    # One tensor at a time, so that two copies of the model never stand side by side, nor its file beside it.
    # What was made anew from the file's tensors goes first, because its memory comes free.
    pages = MappedPages()
    parameters = sorted(model.named_parameters(), key=lambda item: pages.hold(item[1].data))
    copies = sum(not pages.hold(parameter.data) for _, parameter in parameters)
    for place, (name, parameter) in enumerate(parameters):
        if place == copies:
            pages.trim()
        kept = name in ("logit_scale", "logit_bias")
        parameter.data = pages.to(parameter.data, device, torch.float32 if kept else dtype)
    for buffer in model.buffers():
        buffer.data = buffer.data.to(device=device, dtype=dtype if buffer.is_floating_point() else buffer.dtype)
