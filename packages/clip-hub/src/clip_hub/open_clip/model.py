"""OpenCLIP's names for what is in `clip_hub.drop_in.models`."""

from __future__ import annotations

from clip_hub.drop_in.configs import CLIPTextCfg, CLIPVisionCfg
from clip_hub.drop_in.models import (
    CLIP,
    CustomTextCLIP,
    convert_weights_to_lp,
    get_cast_dtype,
    get_input_dtype,
    get_model_preprocess_cfg,
    get_model_tokenize_cfg,
    set_model_preprocess_cfg,
)

convert_weights_to_fp16 = convert_weights_to_lp

__all__ = [
    "CLIP",
    "CLIPTextCfg",
    "CLIPVisionCfg",
    "CustomTextCLIP",
    "convert_weights_to_fp16",
    "convert_weights_to_lp",
    "get_cast_dtype",
    "get_input_dtype",
    "get_model_preprocess_cfg",
    "get_model_tokenize_cfg",
    "set_model_preprocess_cfg",
]
