"""Published weights of SigLIP 2 (Tschannen et al. 2025), for texts in many languages."""

from __future__ import annotations

from typing import Any

from clip_core.presets.parts import INCEPTION_MEAN, INCEPTION_STD
from clip_hub.tags.table import Row, rows, with_facts

__all__ = ["TAGS"]

# model, tag, repository, data, samples seen in 10^9, ImageNet top-1, mean of 38 sets
# fmt: off
_SIGLIP2: tuple[Row, ...] = (
    ("ViT-B-32-SigLIP2-256", "webli", "timm/ViT-B-32-SigLIP2-256", "WebLI", None, 0.74, None),
    ("ViT-B-16-SigLIP2", "webli", "timm/ViT-B-16-SigLIP2", "WebLI", None, 0.782, None),
    ("ViT-B-16-SigLIP2-256", "webli", "timm/ViT-B-16-SigLIP2-256", "WebLI", None, 0.791, None),
    ("ViT-B-16-SigLIP2-384", "webli", "timm/ViT-B-16-SigLIP2-384", "WebLI", None, 0.806, None),
    ("ViT-B-16-SigLIP2-512", "webli", "timm/ViT-B-16-SigLIP2-512", "WebLI", None, 0.812, None),
    ("ViT-B-16-SigLIP2-naflex", "webli", "timm/ViT-B-16-SigLIP2-naflex", "WebLI", None, 0.785, None),
    ("ViT-L-16-SigLIP2-256", "webli", "timm/ViT-L-16-SigLIP2-256", "WebLI", None, 0.825, None),
    ("ViT-L-16-SigLIP2-384", "webli", "timm/ViT-L-16-SigLIP2-384", "WebLI", None, 0.831, None),
    ("ViT-L-16-SigLIP2-512", "webli", "timm/ViT-L-16-SigLIP2-512", "WebLI", None, 0.835, None),
    ("ViT-SO400M-14-SigLIP2", "webli", "timm/ViT-SO400M-14-SigLIP2", "WebLI", None, 0.832, None),
    ("ViT-SO400M-14-SigLIP2-378", "webli", "timm/ViT-SO400M-14-SigLIP2-378", "WebLI", None, 0.841, None),
    ("ViT-SO400M-16-SigLIP2-256", "webli", "timm/ViT-SO400M-16-SigLIP2-256", "WebLI", None, 0.834, None),
    ("ViT-SO400M-16-SigLIP2-384", "webli", "timm/ViT-SO400M-16-SigLIP2-384", "WebLI", None, 0.841, None),
    ("ViT-SO400M-16-SigLIP2-512", "webli", "timm/ViT-SO400M-16-SigLIP2-512", "WebLI", None, 0.843, None),
    ("ViT-SO400M-16-SigLIP2-naflex", "webli", "timm/ViT-SO400M-16-SigLIP2-naflex", "WebLI", None, 0.835, None),
    ("ViT-gopt-16-SigLIP2-256", "webli", "timm/ViT-gopt-16-SigLIP2-256", "WebLI", None, 0.845, None),
    ("ViT-gopt-16-SigLIP2-384", "webli", "timm/ViT-gopt-16-SigLIP2-384", "WebLI", None, 0.85, None),
)
# fmt: on

_COMMON: dict[str, Any] = {
    "activation": "gelu_tanh",
    "licence": "apache-2.0",
    "mean": INCEPTION_MEAN,
    "std": INCEPTION_STD,
    "resize_mode": "squash",
    "measured_by": "README of SigLIP 2 in google-research/big_vision",
}

_NOTES = {
    "ViT-B-16-SigLIP2-naflex:webli": "The accuracy is that for 256 patches. open_clip 3.3.0 lacks this model.",
    "ViT-SO400M-16-SigLIP2-naflex:webli": "The accuracy is that for 256 patches. open_clip 3.3.0 lacks this model.",
}

TAGS = with_facts(
    (*rows(_SIGLIP2, **_COMMON),),
    notes=_NOTES,
)
