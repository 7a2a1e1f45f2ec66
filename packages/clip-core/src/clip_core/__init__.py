"""CLIP models for inference: towers, tokenizer, preprocessing. Never opens a socket; weights load without pickle.

`create_model(name)` builds one, `load(folder)` reads one back, and `zero_shot` classifies with it. torchvision is
imported when the first transform is built; importing this package costs little more than importing torch.
"""

from __future__ import annotations

from clip_core.__about__ import __version__
from clip_core.bundle import Bundle
from clip_core.config import ClipConfig
from clip_core.convert.image_tower import load_image_tower
from clip_core.convert.text_encoder import load_text_tower
from clip_core.creation import create, create_model, create_model_and_transforms, get_tokenizer
from clip_core.errors import (
    CheckpointMismatch,
    ClipError,
    ConfigError,
    DataError,
    ImageError,
    StorageError,
    TokenTooLong,
    UnknownModel,
)
from clip_core.images import open_image
from clip_core.int8 import quantize
from clip_core.model import Clip, ClipOutput
from clip_core.onnx_export import export_onnx
from clip_core.preprocess import build_transform
from clip_core.presets import get_config, list_models
from clip_core.storage import export, load, save

__all__ = [
    "Bundle",
    "CheckpointMismatch",
    "Clip",
    "ClipConfig",
    "ClipError",
    "ClipOutput",
    "ConfigError",
    "DataError",
    "ImageError",
    "StorageError",
    "TokenTooLong",
    "UnknownModel",
    "__version__",
    "build_transform",
    "create",
    "create_model",
    "create_model_and_transforms",
    "export",
    "export_onnx",
    "get_config",
    "get_tokenizer",
    "list_models",
    "load",
    "load_image_tower",
    "load_text_tower",
    "open_image",
    "quantize",
    "save",
]
