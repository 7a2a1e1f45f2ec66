"""Published weights of MobileCLIP (Vasu et al. 2024) and MobileCLIP2 (Faghri et al. 2025).

Accuracies and samples seen are those of the authors' README.
"""

from __future__ import annotations

from typing import Any

from clip_hub.tags.table import Row, rows

__all__ = ["TAGS"]

# model, tag, repository, data, samples seen in 10^9, ImageNet top-1, mean of 38 sets
# fmt: off
_FIRST: tuple[Row, ...] = (
    ("MobileCLIP-S1", "datacompdr", "apple/MobileCLIP-S1-OpenCLIP", "DataCompDR", 13, 0.726, 0.613),
    ("MobileCLIP-S2", "datacompdr", "apple/MobileCLIP-S2-OpenCLIP", "DataCompDR", 13, 0.744, 0.637),
    ("MobileCLIP-B", "datacompdr", "apple/MobileCLIP-B-OpenCLIP", "DataCompDR", 13, 0.768, 0.652),
    ("MobileCLIP-B", "datacompdr_lt", "apple/MobileCLIP-B-LT-OpenCLIP", "DataCompDR", 36, 0.772, 0.658),
)

_SECOND: tuple[Row, ...] = (
    ("MobileCLIP2-S0", "dfndr2b", "timm/MobileCLIP2-S0-OpenCLIP", "DFNDR-2B", None, 0.715, 0.597),
    ("MobileCLIP2-S2", "dfndr2b", "timm/MobileCLIP2-S2-OpenCLIP", "DFNDR-2B", None, 0.772, 0.641),
    ("MobileCLIP2-B", "dfndr2b", "timm/MobileCLIP2-B-OpenCLIP", "DFNDR-2B", None, 0.794, 0.658),
)

_LARGER: tuple[Row, ...] = (
    ("MobileCLIP2-S3", "dfndr2b", "timm/MobileCLIP2-S3-OpenCLIP", "DFNDR-2B", None, 0.807, 0.668),
    ("MobileCLIP2-S4", "dfndr2b", "timm/MobileCLIP2-S4-OpenCLIP", "DFNDR-2B", None, 0.819, 0.675),
)

_VIT: tuple[Row, ...] = (
    ("MobileCLIP2-L-14", "dfndr2b", "timm/MobileCLIP2-L-14-OpenCLIP", "DFNDR-2B", None, 0.819, 0.678),
)
# fmt: on

_COMMON: dict[str, Any] = {"licence": "apple-amlr", "measured_by": "README of apple/ml-mobileclip"}

# Pixels stay from 0 to 1.
_PLAIN: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "interpolation": "bilinear"}

_LICENCE = "The licence is that of the card; timm's registry names Apple's sample code licence (apple-ascl)."

TAGS = (
    *rows(_FIRST, **_COMMON, **_PLAIN, note=_LICENCE),
    *rows(_SECOND, **_COMMON, **_PLAIN),
    *rows(_LARGER, **_COMMON, interpolation="bilinear"),
    *rows(_VIT, **_COMMON),
)
