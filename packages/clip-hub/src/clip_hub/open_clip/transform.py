"""OpenCLIP's names for what is in `clip_hub.drop_in.transforms`."""

from __future__ import annotations

from clip_hub.drop_in.transforms import (
    AugmentationCfg,
    PreprocessCfg,
    image_transform,
    image_transform_v2,
    merge_preprocess_dict,
    merge_preprocess_kwargs,
)

__all__ = [
    "AugmentationCfg",
    "PreprocessCfg",
    "image_transform",
    "image_transform_v2",
    "merge_preprocess_dict",
    "merge_preprocess_kwargs",
]
