"""The natural and specialized sets of the Visual Task Adaptation Benchmark (Zhai et al. 2019), with its splits.

SUN397 stands in `natural`, because the suites use all of its images instead of VTAB's split; the structured sets stand
in `vtab_structured`.
"""

from __future__ import annotations

from functools import partial

from clip_eval.catalogue.entry import Entry

__all__ = ["ENTRIES"]

_vtab = partial(Entry, kind="classification", on_hub=True)
_natural = partial(_vtab, type="natural")
_specialized = partial(_vtab, type="specialized")

ENTRIES: tuple[Entry, ...] = (
    _natural(
        name="vtab/caltech101",
        title="Caltech-101",
        classes=102,
        test=6_085,
        main_metric="mean_per_class_recall",
        chance=0.009804,
        prompts="caltech101",
        names="caltech101_vtab",
        datacomp="vtab/caltech101",
        source="Fei-Fei et al. 2004",
        licence="CC BY 4.0",
        notes=(
            "DataComp counts 6,085 images, CLIP_benchmark's published table fits 6,084.",
            "CLIP_benchmark's `caltech101` without vtab/ is another set: all images, no split.",
        ),
    ),
    _natural(
        name="vtab/cifar10",
        title="CIFAR-10",
        classes=10,
        test=10_000,
        chance=0.1,
        prompts="cifar10",
        datacomp="cifar10",
        source="Krizhevsky 2009",
    ),
    _natural(
        name="vtab/cifar100",
        title="CIFAR-100",
        classes=100,
        test=10_000,
        chance=0.01,
        prompts="cifar100",
        datacomp="vtab/cifar100",
        source="Krizhevsky 2009",
    ),
    _natural(
        name="vtab/dtd",
        title="Describable Textures",
        classes=47,
        test=1_880,
        chance=0.021277,
        prompts="dtd",
        datacomp="vtab/dtd",
        source="Cimpoi et al. 2014",
    ),
    _natural(
        name="vtab/flowers",
        title="Oxford Flowers-102",
        classes=102,
        test=6_149,
        main_metric="mean_per_class_recall",
        chance=0.009804,
        prompts="flowers",
        names="flowers",
        datacomp="vtab/flowers",
        source="Nilsback and Zisserman 2008",
    ),
    _natural(
        name="vtab/pets",
        title="Oxford-IIIT Pet",
        classes=37,
        test=3_669,
        main_metric="mean_per_class_recall",
        chance=0.027027,
        prompts="pets",
        names="pets",
        datacomp="vtab/pets",
        source="Parkhi et al. 2012",
    ),
    _natural(
        name="vtab/svhn",
        title="SVHN",
        classes=10,
        test=26_032,
        chance=0.117897,
        prompts="svhn",
        names="svhn",
        datacomp="vtab/svhn",
        source="Netzer et al. 2011, Street View house numbers",
        notes=("The two published tables differ by up to 0.21 on it, for reasons not known: not comparable.",),
    ),
    _specialized(
        name="vtab/diabetic_retinopathy",
        title="Diabetic Retinopathy",
        classes=5,
        test=42_670,
        chance=0.2,
        prompts="diabetic_retinopathy",
        names="diabetic_retinopathy",
        source="Kaggle 2015, EyePACS; btgraham-300",
    ),
    _specialized(
        name="vtab/eurosat",
        title="EuroSAT",
        classes=10,
        test=5_400,
        chance=0.101483,
        prompts="eurosat",
        names="eurosat",
        datacomp="vtab/eurosat",
        source="Helber et al. 2019, RGB",
        licence="MIT",
        notes=("CLIP_benchmark's `eurosat` without vtab/ is another set: all images, no split.",),
    ),
    _specialized(
        name="vtab/pcam",
        title="PatchCamelyon",
        classes=2,
        test=32_768,
        chance=0.5,
        prompts="pcam",
        names="pcam",
        datacomp="vtab/pcam",
        source="Veeling et al. 2018, github.com/basveeling/pcam",
        licence="CC0 1.0",
    ),
    _specialized(
        name="vtab/resisc45",
        title="RESISC45",
        classes=45,
        test=6_300,
        chance=0.022342,
        prompts="resisc45",
        datacomp="vtab/resisc45",
        source="Cheng et al. 2017",
    ),
)
