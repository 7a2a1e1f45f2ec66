"""ImageNet's validation set and its variants: the same 1000 names or a part of them, and the same 80 templates.

ImageNet-A, -O and -R have 200 of the classes each, ObjectNet 113 names of its own.
"""

from __future__ import annotations

from functools import partial

from clip_eval.catalogue.entry import Entry

__all__ = ["ENTRIES"]

_LANGUAGES = ("en", "it", "jp", "cn", "ar")
_TWICE = (
    "Two names stand for two classes each (missile, sunglasses), so the tie rule decides for these images: 200 of the "
    "50,000 in ImageNet itself. The record has the bounds."
)
_imagenet = partial(Entry, kind="classification", prompts="imagenet1k", names="imagenet1k", type="natural", on_hub=True)

ENTRIES: tuple[Entry, ...] = (
    _imagenet(
        name="imagenet1k",
        title="ImageNet 1k",
        classes=1000,
        test=50_000,
        chance=0.001,
        datacomp="imagenet1k",
        aliases=("imagenet", "imagenet-1k", "imagenet1k-unverified"),
        source="ILSVRC 2012 validation, image-net.org",
        licence="ImageNet terms of access: non-commercial research and education",
        languages=_LANGUAGES,
        notes=(
            _TWICE,
            "In other languages more names are doubled: 20 in Italian, 9 in Japanese, 4 in Arabic, 1 in Chinese.",
        ),
    ),
    _imagenet(
        name="imagenetv2",
        title="ImageNet v2",
        classes=1000,
        test=10_000,
        chance=0.001,
        datacomp="imagenetv2",
        aliases=("imagenet-v2",),
        source="Recht et al. 2019, matched-frequency; Hub vaishaal/ImageNetV2",
        languages=_LANGUAGES,
        notes=(_TWICE,),
    ),
    _imagenet(
        name="imagenet_sketch",
        title="ImageNet Sketch",
        classes=1000,
        test=50_889,
        chance=0.001,
        type="specialized",
        datacomp="imagenet_sketch",
        aliases=("imagenet-sketch",),
        source="Wang et al. 2019, github.com/HaohanWang/ImageNet-Sketch",
        languages=_LANGUAGES,
        notes=(_TWICE,),
    ),
    _imagenet(
        name="imagenet-a",
        names="imagenet-a",
        title="ImageNet-A",
        classes=200,
        test=7_500,
        chance=0.008056,
        datacomp="imagenet-a",
        languages=_LANGUAGES,
        source="Hendrycks et al. 2021, github.com/hendrycks/natural-adv-examples",
        licence="MIT",
        notes=("The images were chosen because a ResNet-50 fails on them.",),
    ),
    _imagenet(
        name="imagenet-r",
        names="imagenet-r",
        title="ImageNet-R",
        classes=200,
        test=30_000,
        chance=0.006163,
        datacomp="imagenet-r",
        languages=_LANGUAGES,
        source="Hendrycks et al. 2021, github.com/hendrycks/imagenet-r",
    ),
    _imagenet(
        name="imagenet-o",
        names="imagenet-o",
        title="ImageNet-O",
        classes=200,
        test=2_000,
        chance=0.006047,
        datacomp="imagenet-o",
        languages=_LANGUAGES,
        source="Hendrycks et al. 2021, github.com/hendrycks/natural-adv-examples",
        licence="MIT",
        notes=(
            "Made to detect images outside ImageNet. As a classification among 200 names it says next to nothing about "
            "robustness (its logit correlates with ImageNet's at 0.15, that of ImageNet v2 at 0.999), yet DataComp's "
            "averages count it.",
        ),
    ),
    _imagenet(
        name="imagenet-w",
        title="ImageNet-W",
        classes=1000,
        test=50_000,
        chance=0.001,
        on_hub=False,
        languages=_LANGUAGES,
        source="Li et al. 2023: ImageNet's validation set with a watermark put on after the crop",
        notes=("Depends on the model's crop; the watermark is drawn while reading. Not carried: build it yourself.",),
    ),
    _imagenet(
        name="objectnet",
        title="ObjectNet",
        classes=113,
        test=18_574,
        chance=0.009481,
        names="",
        datacomp="objectnet",
        source="Barbu et al. 2019, objectnet.dev",
        licence="CC BY 4.0; never to train on it, and every copy has to carry a red border of one pixel",
        notes=("The 113 classes that overlap with ImageNet, under ObjectNet's own names in lower case.",),
    ),
)
