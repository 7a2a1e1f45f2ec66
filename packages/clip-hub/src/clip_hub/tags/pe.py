"""Published weights of the Perception Encoder's core models (Bolya et al. 2025)."""

from __future__ import annotations

from typing import Any

from clip_core.presets.parts import INCEPTION_MEAN, INCEPTION_STD
from clip_hub.tags.table import Row, rows

__all__ = ["TAGS"]

# model, tag, repository, data, samples seen in 10^9, ImageNet top-1, mean of 38 sets
# fmt: off
_PE: tuple[Row, ...] = (
    ("PE-Core-T-16-384", "meta", "timm/PE-Core-T-16-384",
     "image and video captions (Meta, not published)", None, None, None),
    ("PE-Core-S-16-384", "meta", "timm/PE-Core-S-16-384",
     "image and video captions (Meta, not published)", None, None, None),
    ("PE-Core-B-16", "meta", "timm/PE-Core-B-16", "image and video captions (Meta, not published)", None, 0.784, None),
    ("PE-Core-L-14-336", "meta", "timm/PE-Core-L-14-336",
     "image and video captions (Meta, not published)", None, 0.835, None),
    ("PE-Core-bigG-14-448", "meta", "timm/PE-Core-bigG-14-448",
     "image and video captions (Meta, not published)", None, 0.854, None),
)
# fmt: on

_COMMON: dict[str, Any] = {
    "licence": "apache-2.0",
    "mean": INCEPTION_MEAN,
    "std": INCEPTION_STD,
    "interpolation": "bilinear",
    "resize_mode": "squash",
    "measured_by": "README of facebookresearch/perception_models",
}

TAGS = rows(_PE, **_COMMON)
