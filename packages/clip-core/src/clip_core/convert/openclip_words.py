"""What OpenCLIP 3.3.0 takes where a configuration says nothing, and its words for ours; read by `openclip_config`."""

from __future__ import annotations

import math
from typing import Any

from clip_core.presets import parts

__all__ = [
    "DECODER",
    "HF_POOLS",
    "IGNORED",
    "IMAGE_POOLS",
    "MODEL",
    "POSITIONS",
    "PREPROCESS",
    "TEXT",
    "TEXT_POOLS",
    "UNUSED",
    "VISION",
]

MODEL: dict[str, Any] = {
    "embed_dim": None,
    "vision_cfg": None,
    "text_cfg": None,
    "multimodal_cfg": None,
    "quick_gelu": False,
    "custom_text": False,
    "init_logit_scale": math.log(1 / 0.07),
    "init_logit_bias": None,
}
VISION: dict[str, Any] = {
    "layers": 12,
    "width": 768,
    "head_width": 64,
    "mlp_ratio": 4.0,
    "patch_size": 16,
    "image_size": 224,
    "ls_init_value": None,
    "patch_dropout": 0.0,
    "attentional_pool": False,
    "attn_pooler_queries": 256,
    "attn_pooler_heads": 8,
    "no_ln_pre": False,
    "pos_embed_type": "learnable",
    "final_ln_after_pool": False,
    "pool_type": "tok",
    "act_kwargs": None,
    "norm_kwargs": None,
    "timm_model_name": None,
    "timm_pool": "avg",
    "timm_proj": "linear",
    "timm_drop": 0.0,
    "timm_drop_path": None,
    "timm_model_kwargs": None,
}
TEXT: dict[str, Any] = {
    "context_length": 77,
    "vocab_size": 49408,
    "hf_tokenizer_name": None,
    "tokenizer_kwargs": None,
    "width": 512,
    "heads": 8,
    "layers": 12,
    "mlp_ratio": 4.0,
    "ls_init_value": None,
    "embed_cls": False,
    "pad_id": 0,
    "eos_id": 2,
    "no_causal_mask": False,
    "pool_type": "argmax",
    "proj_bias": False,
    "proj_type": "linear",
    "act_kwargs": None,
    "norm_kwargs": None,
    "hf_model_name": None,
    "hf_proj_type": "mlp",
    "hf_pooler_type": "mean_pooler",
}
DECODER: dict[str, Any] = {
    "context_length": 77,
    "vocab_size": 49408,
    "width": 512,
    "layers": 12,
    "heads": 8,
    "mlp_ratio": 4,
    "dim_head": 64,
    "n_queries": 256,
    "attn_pooler_heads": 8,
}
PREPROCESS: dict[str, Any] = {
    "size": None,
    "mode": "RGB",
    "mean": parts.OPENAI_MEAN,
    "std": parts.OPENAI_STD,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 0,
}
POSITIONS = {"learnable": "learned", "sin_cos_2d": "sin_cos"}
# What no model of OpenCLIP's family uses, with the value that means "not used"; and what changes no feature.
UNUSED: dict[str, Any] = {
    "block_type": None,
    "qk_norm": False,
    "scaled_cosine_attn": False,
    "scale_heads": False,
    "scale_attn_inner": False,
    "scale_attn": False,
    "scale_fc": False,
    "timm_proj_bias": False,
    "tokenizer_mode": None,
    "final_ln_after_pool": False,
    "nonscalar_logit_scale": False,
}
IGNORED = ("output_tokens", "timm_model_pretrained", "hf_model_pretrained")

IMAGE_POOLS = {"tok": "token", "avg": "average"}
TEXT_POOLS = {"argmax": "highest_id", "eos": "eos", "first": "first", "last": "last"}
HF_POOLS = {"mean_pooler": "mean", "max_pooler": "max", "cls_pooler": "cls", "cls_last_hidden_state_pooler": "first"}
