"""OpenCLIP's two functions for OpenAI's own weights."""

from __future__ import annotations

import os
from typing import Any

import torch

from clip_hub.drop_in.creation import create_model
from clip_hub.drop_in.pretrained import list_pretrained_models_by_tag

__all__ = ["list_openai_models", "load_openai_model"]


def list_openai_models() -> list[str]:
    """The architectures that OpenAI published weights of."""
    return list_pretrained_models_by_tag("openai")


def load_openai_model(
    name: str,
    precision: str | None = None,
    device: str | torch.device | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Any:
    """OpenAI's weights of architecture `name`; in evaluation mode, by default in half precision on a GPU."""
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    chosen = precision or ("fp32" if place.type == "cpu" else "fp16")
    return create_model(name, "openai", precision=chosen, device=place, cache_dir=cache_dir).eval()
