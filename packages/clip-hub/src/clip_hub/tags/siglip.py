"""Published weights of SigLIP (Zhai et al. 2023). Samples seen are those of OpenCLIP's README."""

from __future__ import annotations

from typing import Any

from clip_core.presets.parts import INCEPTION_MEAN, INCEPTION_STD
from clip_hub.tags.table import Row, rows, with_facts

__all__ = ["TAGS"]

# model, tag, repository, data, samples seen in 10^9, ImageNet top-1, mean of 38 sets
# fmt: off
_SIGLIP: tuple[Row, ...] = (
    ("ViT-B-16-SigLIP", "webli", "timm/ViT-B-16-SigLIP", "WebLI", None, 0.7604, 0.6232),
    ("ViT-B-16-SigLIP-256", "webli", "timm/ViT-B-16-SigLIP-256", "WebLI", None, 0.7653, 0.6226),
    ("ViT-B-16-SigLIP-384", "webli", "timm/ViT-B-16-SigLIP-384", "WebLI", None, 0.7849, 0.6379),
    ("ViT-B-16-SigLIP-512", "webli", "timm/ViT-B-16-SigLIP-512", "WebLI", None, 0.7914, 0.6459),
    ("ViT-B-16-SigLIP-i18n-256", "webli", "timm/ViT-B-16-SigLIP-i18n-256", "WebLI", None, 0.7513, 0.6068),
    ("ViT-L-16-SigLIP-256", "webli", "timm/ViT-L-16-SigLIP-256", "WebLI", None, 0.8045, 0.6557),
    ("ViT-L-16-SigLIP-384", "webli", "timm/ViT-L-16-SigLIP-384", "WebLI", None, 0.8207, 0.6683),
    ("ViT-SO400M-14-SigLIP", "webli", "timm/ViT-SO400M-14-SigLIP", "WebLI", 45, 0.8203, 0.6808),
    ("ViT-SO400M-14-SigLIP-378", "webli", "timm/ViT-SO400M-14-SigLIP-384", "WebLI", 45, None, None),
    ("ViT-SO400M-14-SigLIP-384", "webli", "timm/ViT-SO400M-14-SigLIP-384", "WebLI", 45, 0.8308, 0.6921),
    ("ViT-SO400M-16-SigLIP-i18n-256", "webli", "timm/ViT-SO400M-16-SigLIP-i18n-256", "WebLI", None, None, None),
)
# fmt: on

_COMMON: dict[str, Any] = {
    "licence": "apache-2.0",
    "mean": INCEPTION_MEAN,
    "std": INCEPTION_STD,
    "resize_mode": "squash",
}

_NOTES = {
    "ViT-SO400M-14-SigLIP-378:webli": "The file of ViT-SO400M-14-SigLIP-384, whose 27 patches a side are 378 pixels.",
}

TAGS = with_facts(
    (*rows(_SIGLIP, **_COMMON),),
    notes=_NOTES,
)
