"""OpenCLIP's names for what is in `clip_hub.drop_in.models`."""

from __future__ import annotations

from clip_hub.drop_in.models import (
    CLIP,
    CustomTextCLIP,
    get_cast_dtype,
    get_input_dtype,
    get_model_preprocess_cfg,
    get_model_tokenize_cfg,
    set_model_preprocess_cfg,
)

__all__ = [
    "CLIP",
    "CustomTextCLIP",
    "get_cast_dtype",
    "get_input_dtype",
    "get_model_preprocess_cfg",
    "get_model_tokenize_cfg",
    "set_model_preprocess_cfg",
]
