"""How far two careful measurements of the same weights lie apart, data set by data set.

CLIP_benchmark's published table and OpenCLIP's have 13 models in common. The largest difference between the two, over
these models, is what other machines, precisions and library versions do to a score: a smaller difference is no sign of
a mistake. Where they differ by more than that could explain, a comparison says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["NOT_COMPARABLE", "Tolerance", "tolerance_for"]

NOT_COMPARABLE: Mapping[str, str] = {
    "vtab/svhn": "two published tables differ by up to 0.21 on it; prompts or labels must differ",
    "vtab/clevr_closest_object_distance": "two published tables differ by up to 0.10 on it; prompts or labels differ",
}
"""Data sets whose published scores cannot be compared with, and why."""

_MEASURED: Mapping[str, float] = {
    "imagenet1k": 0.0012,
    "imagenetv2": 0.0023,
    "imagenet_sketch": 0.0010,
    "imagenet-a": 0.0018,
    "imagenet-r": 0.0010,
    "objectnet": 0.0029,
    "vtab/cifar10": 0.0010,
    "vtab/cifar100": 0.0031,
    "sun397": 0.0004,
    "country211": 0.0015,
    "voc2007": 0.0016,
    "cars": 0.0031,
    "fgvc_aircraft": 0.0029,
    "vtab/dtd": 0.0038,
    "vtab/resisc45": 0.0038,
    "vtab/pets": 0.0041,
    "vtab/flowers": 0.0049,
    "gtsrb": 0.0075,
    "renderedsst2": 0.0104,
    "vtab/eurosat": 0.0104,
    "vtab/clevr_count_all": 0.0108,
    "vtab/kitti_closest_vehicle_distance": 0.0113,
    "vtab/pcam": 0.0136,
    "mnist": 0.0180,
    "vtab/caltech101": 0.0188,
    "flickr30k": 0.0040,
    "mscoco_captions": 0.0020,
}
_LARGEST = max(_MEASURED.values())


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a difference from a published score may be without meaning anything."""

    value: float
    measured: bool
    """Whether it is known for this data set; otherwise it is the largest that is known for any."""


def tolerance_for(dataset: str) -> Tolerance:
    """The tolerance of a data set by its name in the catalogue; of retrieval measured at recall@5, used for every k."""
    known = _MEASURED.get(dataset)
    return Tolerance(_LARGEST, False) if known is None else Tolerance(known, True)
