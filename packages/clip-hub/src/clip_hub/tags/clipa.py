"""Published weights of CLIPA (Li et al. 2023), trained on 8 x 8 patches, then at 224 pixels, then at 336.

Samples seen are the sum of those stages in the authors' table.
"""

from __future__ import annotations

from typing import Any

from clip_core.presets.parts import IMAGENET_MEAN, IMAGENET_STD
from clip_hub.tags.table import Row, rows

__all__ = ["TAGS"]

# model, tag, repository, data, samples seen in 10^9, ImageNet top-1, mean of 38 sets
# fmt: off
_CLIPA: tuple[Row, ...] = (
    ("ViT-L-14-CLIPA", "datacomp1b", "UCSC-VLAA/ViT-L-14-CLIPA-datacomp1B", "DataComp-1B", None, 0.7957, 0.6536),
    ("ViT-L-14-CLIPA-336", "datacomp1b", "UCSC-VLAA/ViT-L-14-CLIPA-336-datacomp1B", "DataComp-1B", None, 0.8026, 0.657),
    ("ViT-H-14-CLIPA", "datacomp1b", "UCSC-VLAA/ViT-H-14-CLIPA-datacomp1B", "DataComp-1B", 13.312, 0.8152, 0.6653),
    ("ViT-H-14-CLIPA-336", "laion2b", "UCSC-VLAA/ViT-H-14-CLIPA-336-laion2B",
     "LAION-2B (English)", None, 0.791, 0.6439),
    ("ViT-H-14-CLIPA-336", "datacomp1b", "UCSC-VLAA/ViT-H-14-CLIPA-336-datacomp1B",
     "DataComp-1B", 13.44, 0.818, 0.6677),
    ("ViT-bigG-14-CLIPA", "datacomp1b", "UCSC-VLAA/ViT-bigG-14-CLIPA-datacomp1B", "DataComp-1B", 13.312, 0.827, 0.6822),
    ("ViT-bigG-14-CLIPA-336", "datacomp1b", "UCSC-VLAA/ViT-bigG-14-CLIPA-336-datacomp1B",
     "DataComp-1B", 13.44, 0.8309, 0.6842),
)
# fmt: on

_COMMON: dict[str, Any] = {
    "licence": "apache-2.0",
    "mean": IMAGENET_MEAN,
    "std": IMAGENET_STD,
    "interpolation": "bilinear",
    "resize_mode": "squash",
}

TAGS = rows(_CLIPA, **_COMMON)
