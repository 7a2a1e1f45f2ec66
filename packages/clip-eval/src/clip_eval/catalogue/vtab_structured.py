"""The structured sets of the Visual Task Adaptation Benchmark (Zhai et al. 2019): to count, to measure, to orient.

The class names are words for numbers or bare numbers, and a zero-shot score on them says little.
"""

from __future__ import annotations

from functools import partial

from clip_eval.catalogue.entry import Entry

__all__ = ["ENTRIES"]

_structured = partial(Entry, kind="classification", type="structured", on_hub=True)
_BINS = (
    "The class names are the numbers of bins (0, 1, 2, ...), not degrees or percent, and not VTAB's own grouped label "
    "set; a zero-shot score says little."
)

ENTRIES: tuple[Entry, ...] = (
    _structured(
        name="vtab/clevr_count_all",
        title="CLEVR Counts",
        classes=8,
        test=15_000,
        chance=0.125061,
        prompts="clevr_count_all",
        names="clevr_count_all",
        datacomp="vtab/clevr_count_all",
        source="Johnson et al. 2017",
    ),
    _structured(
        name="vtab/clevr_closest_object_distance",
        title="CLEVR Distance",
        classes=6,
        test=15_000,
        chance=0.190520,
        prompts="clevr_closest_object_distance",
        names="clevr_closest_object_distance",
        datacomp="vtab/clevr_closest_object_distance",
        source="Johnson et al. 2017",
        notes=(
            "One of its class names is empty; a reader that drops blank lines shifts every label behind it.",
            "The two published tables differ by up to 0.10 on it, for reasons not known: not comparable.",
        ),
    ),
    _structured(
        name="vtab/dmlab",
        title="DMLab",
        classes=6,
        test=22_735,
        chance=1 / 6,
        prompts="dmlab",
        names="dmlab",
        source="Beattie et al. 2016, frames labelled by VTAB",
    ),
    _structured(
        name="vtab/dsprites_label_orientation",
        title="dSprites Orientation",
        classes=40,
        test=73_728,
        chance=1 / 40,
        prompts="dsprites_label_orientation",
        source="Matthey et al. 2017, the last tenth",
        notes=(_BINS,),
    ),
    _structured(
        name="vtab/dsprites_label_x_position",
        title="dSprites X Position",
        classes=32,
        test=73_728,
        chance=1 / 32,
        prompts="dsprites_label_x_position",
        source="Matthey et al. 2017, the last tenth",
        notes=(_BINS,),
    ),
    _structured(
        name="vtab/dsprites_label_y_position",
        title="dSprites Y Position",
        classes=32,
        test=73_728,
        chance=1 / 32,
        source="Matthey et al. 2017, the last tenth",
        notes=(_BINS, "It has no templates; CLIP_benchmark silently takes ImageNet's."),
    ),
    _structured(
        name="vtab/kitti_closest_vehicle_distance",
        title="KITTI Vehicle Distance",
        classes=4,
        test=711,
        chance=0.295289,
        prompts="kitti_closest_vehicle_distance",
        names="kitti_closest_vehicle_distance",
        datacomp="vtab/kitti_closest_vehicle_distance",
        source="Geiger et al. 2012",
        notes=("With 711 images the 95 % interval is about 0.033 to either side.",),
    ),
    _structured(
        name="vtab/smallnorb_label_azimuth",
        title="smallNORB Azimuth",
        classes=18,
        test=12_150,
        chance=1 / 18,
        prompts="smallnorb_label_azimuth",
        source="LeCun et al. 2004",
        notes=(_BINS,),
    ),
    _structured(
        name="vtab/smallnorb_label_elevation",
        title="smallNORB Elevation",
        classes=9,
        test=12_150,
        chance=1 / 9,
        prompts="smallnorb_label_elevation",
        source="LeCun et al. 2004",
        notes=(_BINS,),
    ),
)
