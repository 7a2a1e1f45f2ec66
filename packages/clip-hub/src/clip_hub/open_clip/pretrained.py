"""OpenCLIP's names for what is in `clip_hub.drop_in.pretrained`."""

from __future__ import annotations

from clip_hub.drop_in.pretrained import (
    download_pretrained,
    download_pretrained_from_hf,
    download_pretrained_from_url,
    get_pretrained_cfg,
    get_pretrained_url,
    is_pretrained_cfg,
    list_pretrained,
    list_pretrained_models_by_tag,
    list_pretrained_tags_by_model,
)

__all__ = [
    "download_pretrained",
    "download_pretrained_from_hf",
    "download_pretrained_from_url",
    "get_pretrained_cfg",
    "get_pretrained_url",
    "is_pretrained_cfg",
    "list_pretrained",
    "list_pretrained_models_by_tag",
    "list_pretrained_tags_by_model",
]
