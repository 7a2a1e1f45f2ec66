"""Sets whose score is about groups of images: WILDS' shifts and the fairness sets of DataComp.

The fields are those of the vector that DataComp's copies carry beside each label.
"""

from __future__ import annotations

from functools import partial

from clip_eval.catalogue.entry import Entry, Groups

__all__ = ["ENTRIES"]

_set = partial(Entry, kind="classification", type="natural")
_FACES = ("race", "gender", "age", "toxic")
_FACE_FIELDS = ("age", "gender", "race", "race_binary")
_FACE_GROUPS = (("race_binary",), ("gender", "race"), ("race",))
_GENDER = ("male", "female")
_RACE_BINARY = ("white", "non-white")

ENTRIES: tuple[Entry, ...] = (
    _set(
        name="wilds/iwildcam",
        title="iWildCam",
        classes=182,
        test=42_791,
        main_metric="F1-macro_all",
        chance=0.143056,
        datacomp="wilds/iwildcam",
        source="Beery et al. 2020, WILDS",
        licence="CDLA-Permissive-1.0",
        groups=Groups(
            fields=("location", "sequence", "year", "month", "day", "hour", "minute", "second", "y"),
            by=(("location",),),
        ),
        notes=("DataComp's random_score is the accuracy of guessing, while the main metric is F1.",),
    ),
    _set(
        name="wilds/camelyon17",
        title="Camelyon17",
        classes=2,
        test=85_054,
        chance=0.5,
        type="specialized",
        datacomp="wilds/camelyon17",
        source="Bandi et al. 2018, WILDS",
        licence="CC0 1.0",
        groups=Groups(fields=("hospital", "slide", "y"), by=(("slide",),)),
    ),
    _set(
        name="wilds/fmow",
        title="FMoW",
        classes=62,
        test=22_108,
        main_metric="acc_worst_region",
        chance=0.027193,
        type="specialized",
        datacomp="wilds/fmow",
        source="Christie et al. 2018, WILDS",
        licence="FMoW Challenge Public License",
        groups=Groups(
            fields=("region", "year", "y"),
            by=(("year",), ("region",)),
            values={
                "region": ("Asia", "Europe", "Africa", "Americas", "Oceania", "Other"),
                "year": tuple(str(year) for year in range(2002, 2018)),
            },
        ),
        notes=(
            "The worst region leaves out Other, as WILDS does. DataComp means to, but its evaluator looks for that "
            "word in a label that holds only the number, so there Other's few images decide: 31 of the 121 published "
            "scores are exactly 0. The published number is acc_worst_region_all here.",
            "The chance level is that of the accuracy over all regions.",
        ),
    ),
    _set(
        name="fairness/dollar_street",
        title="Dollar Street",
        classes=58,
        test=3_503,
        main_metric="acc_top5_wg",
        datacomp="fairness/dollar_street",
        source="Gaviria Rojas et al. 2022",
        groups=Groups(fields=("income_ds", "income_meta", "region"), by=(("income_ds",),)),
        notes=("The main score is the top-5 accuracy in the worst group of income.",),
    ),
    _set(
        name="fairness/geode",
        title="GeoDE",
        classes=40,
        test=12_488,
        main_metric="acc_wg",
        datacomp="fairness/geode",
        source="Ramaswamy et al. 2023",
        groups=Groups(fields=("region", "country"), by=(("region",),)),
        notes=("The main score is the accuracy in the worst region.",),
    ),
    _set(
        name="fairness/fairface",
        title="FairFace",
        test=10_954,
        main_metric="acc_gender_avg",
        datacomp="fairness/fairface",
        scored=False,
        source="Karkkainen and Joo 2021",
        licence="CC BY 4.0",
        objectives=_FACES,
        groups=Groups(
            fields=_FACE_FIELDS,
            by=_FACE_GROUPS,
            values={
                "race": ("black", "white", "indian", "latino", "middle eastern", "southeast asian", "east asian"),
                "gender": _GENDER,
                "race_binary": _RACE_BINARY,
            },
        ),
        notes=("Four classifications in one; DataComp gives it no main metric and leaves it out of its average.",),
    ),
    _set(
        name="fairness/utkface",
        title="UTKFace",
        test=23_703,
        main_metric="acc_gender_avg",
        datacomp="fairness/utkface",
        scored=False,
        source="Zhang et al. 2017",
        objectives=_FACES,
        groups=Groups(
            fields=_FACE_FIELDS,
            by=_FACE_GROUPS,
            values={
                "race": ("black", "white", "indian", "asian", "other"),
                "gender": _GENDER,
                "race_binary": _RACE_BINARY,
            },
        ),
        notes=("Four classifications in one; DataComp gives it no main metric and leaves it out of its average.",),
    ),
)
