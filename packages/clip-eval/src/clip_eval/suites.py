"""Suites: data sets under one name, in the order in which tables show them, and the averages that people quote."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from clip_core.errors import ConfigError
from clip_eval.catalogue import entries
from clip_eval.catalogue.compositional import SUGAR_CREPE

__all__ = ["QUICK", "SUITES", "Suite", "suite"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Data sets that are evaluated together."""

    name: str
    title: str
    datasets: tuple[str, ...]
    """Names in the catalogue; of `quick` they are the folders that `clip-eval build quick` writes, too."""
    aggregates: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    """Name of an average -> the data sets whose main metrics it is the plain mean of; all must be there."""
    built: bool = False
    """Whether its data sets are written by `clip-eval build` instead of fetched."""


_VTAB = (
    "vtab/caltech101",
    "vtab/cifar100",
    "vtab/clevr_count_all",
    "vtab/clevr_closest_object_distance",
    "vtab/diabetic_retinopathy",
    "vtab/dmlab",
    "vtab/dsprites_label_orientation",
    "vtab/dsprites_label_x_position",
    "vtab/dtd",
    "vtab/eurosat",
    "vtab/kitti_closest_vehicle_distance",
    "vtab/flowers",
    "vtab/pets",
    "vtab/pcam",
    "vtab/resisc45",
    "vtab/smallnorb_label_azimuth",
    "vtab/smallnorb_label_elevation",
    "sun397",
    "vtab/svhn",
)
_ROBUSTNESS = ("imagenetv2", "imagenet_sketch", "imagenet-a", "imagenet-r", "objectnet")
_RETRIEVAL = ("mscoco_captions", "flickr8k", "flickr30k")
_CLIP = (
    "fer2013",
    "voc2007",
    "voc2007_multilabel",
    "sun397",
    "cars",
    "fgvc_aircraft",
    "mnist",
    "stl10",
    "gtsrb",
    "country211",
    "renderedsst2",
)
_VTAB_PLUS = (
    *("imagenet1k", *_ROBUSTNESS, *_CLIP),
    *("vtab/caltech101", "vtab/cifar10"),
    *(name for name in _VTAB if name not in ("vtab/caltech101", "sun397")),
)
_DATACOMP = tuple(entry.name for entry in entries() if entry.datacomp)
_NOT_IN_DATACOMP = ("vtab/diabetic_retinopathy", "vtab/dmlab")
_DATACOMP_VTAB = tuple(
    name for name in _VTAB if name not in _NOT_IN_DATACOMP and not name.startswith(("vtab/dsprites", "vtab/smallnorb"))
)
QUICK = tuple(entry.name for entry in entries() if entry.build == "clip-eval build quick")
"""Folders that need no network, one or more for every task."""

_DECLARED = (
    Suite(name="vtab", title="VTAB: 19 classification sets, with all of SUN397", datasets=_VTAB),
    Suite(name="vtab+", title="VTAB+: 35 classification sets and VOC 2007 multilabel", datasets=_VTAB_PLUS),
    Suite(
        name="datacomp",
        title="DataComp's 40 tasks, 38 of them in its average",
        datasets=_DATACOMP,
        aggregates={
            "ImageNet": ("imagenet1k",),
            "ImageNet dist. shifts": (*_ROBUSTNESS, "imagenet-o"),
            "VTAB": _DATACOMP_VTAB,
            "Retrieval": ("flickr30k", "mscoco_captions", "winogavil"),
            "Average": tuple(entry.name for entry in entries() if entry.datacomp and entry.scored),
        },
    ),
    Suite(name="retrieval", title="English retrieval: MSCOCO, Flickr8k, Flickr30k", datasets=_RETRIEVAL),
    Suite(name="imagenet_robustness", title="Shifts of ImageNet, without ImageNet itself", datasets=_ROBUSTNESS),
    Suite(
        name="multilingual",
        title="ImageNet in five languages, retrieval in 11, 36 and 201",
        datasets=("imagenet1k", "crossmodal3600", "multilingual_mscoco_captions", "xtd10", "xtd200", "flickr30k-200"),
    ),
    Suite(
        name="sugar_crepe",
        title="SugarCrepe's seven parts",
        datasets=tuple(f"sugar_crepe/{part}" for part in SUGAR_CREPE),
    ),
    Suite(
        name="compositional",
        title="SugarCrepe's seven parts, Winoground, WinoGAViL",
        datasets=(*(f"sugar_crepe/{part}" for part in SUGAR_CREPE), "winoground", "winogavil"),
    ),
    Suite(name="quick", title="Small real sets for every task, without a network", datasets=QUICK, built=True),
)

SUITES: Mapping[str, Suite] = {entry.name: entry for entry in _DECLARED}
"""All suites by name."""


def suite(name: str) -> Suite:
    """The suite of this name, also `vtab_plus` and `sugar_crepe`-style spellings; `ConfigError` with the names."""
    plain = name.strip().lower().replace("-", "_").replace("vtab_plus", "vtab+")
    found = SUITES.get(plain)
    if found is None:
        near = difflib.get_close_matches(plain, list(SUITES), n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"There is no suite {name!r}.{hint} Suites: {', '.join(SUITES)}.")
    return found
