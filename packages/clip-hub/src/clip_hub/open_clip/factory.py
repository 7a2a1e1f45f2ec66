"""OpenCLIP's names for what is in `clip_hub.drop_in`: creating models, tokenizers and losses."""

from __future__ import annotations

from clip_hub.drop_in.creation import create_model, create_model_and_transforms, create_model_from_pretrained
from clip_hub.drop_in.loading import load_checkpoint, load_state_dict
from clip_hub.drop_in.losses import create_loss
from clip_hub.drop_in.sources import add_model_config, get_model_config, get_tokenizer, list_models, parse_model_name

__all__ = [
    "add_model_config",
    "create_loss",
    "create_model",
    "create_model_and_transforms",
    "create_model_from_pretrained",
    "get_model_config",
    "get_tokenizer",
    "list_models",
    "load_checkpoint",
    "load_state_dict",
    "parse_model_name",
]
