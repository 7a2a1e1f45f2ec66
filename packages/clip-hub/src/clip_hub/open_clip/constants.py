"""What channels were normalised with, and the names of files in repositories."""

from __future__ import annotations

from clip_core.convert.reading import OPENCLIP_CONFIG, OPENCLIP_WEIGHTS
from clip_core.presets.parts import IMAGENET_MEAN, IMAGENET_STD, INCEPTION_MEAN, INCEPTION_STD, OPENAI_MEAN, OPENAI_STD

__all__ = [
    "HF_CONFIG_NAME",
    "HF_SAFE_WEIGHTS_NAME",
    "HF_WEIGHTS_NAME",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "INCEPTION_MEAN",
    "INCEPTION_STD",
    "OPENAI_DATASET_MEAN",
    "OPENAI_DATASET_STD",
]

OPENAI_DATASET_MEAN, OPENAI_DATASET_STD = OPENAI_MEAN, OPENAI_STD
HF_CONFIG_NAME, HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME = OPENCLIP_CONFIG, OPENCLIP_WEIGHTS, "open_clip_pytorch_model.bin"
