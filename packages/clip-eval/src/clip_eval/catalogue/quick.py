"""The small sets that come with the package: scikit-learn's scans of digits, and a few photos; without a network."""

from __future__ import annotations

from functools import partial

from clip_eval.catalogue.entry import Entry, Groups

__all__ = ["ENTRIES"]

_digits = partial(
    Entry,
    type="specialized",
    build="clip-eval build quick",
    source="scikit-learn load_digits (UCI Optical Recognition of Handwritten Digits)",
    licence="CC BY 4.0",
)

ENTRIES: tuple[Entry, ...] = (
    _digits(
        name="digits",
        title="Handwritten digits",
        kind="classification",
        classes=10,
        test=360,
        chance=0.1,
        notes=("Its split train, 1,437 other scans, is for the linear probe.",),
    ),
    _digits(
        name="digit_scenes",
        title="Scenes of two digits",
        kind="retrieval",
        test=200,
        captions=200,
        main_metric="mean_recall@1",
        chance=1 / 200,
    ),
    _digits(
        name="digit_captions",
        title="Scenes of two digits, five captions",
        kind="retrieval",
        test=200,
        captions=1_000,
        main_metric="mean_recall@1",
        chance=1 / 200,
        notes=("The captions are also the references of captioning.",),
    ),
    _digits(
        name="digit_pages",
        title="Pages of digits",
        kind="multilabel",
        classes=10,
        test=200,
        main_metric="mean_average_precision",
        chance=0.2,
        notes=("Guessing scores about as much as a digit's share of the pages, a fifth.",),
    ),
    _digits(
        name="digit_papers",
        title="Digits on three papers",
        kind="classification",
        classes=10,
        test=360,
        main_metric="acc_wg",
        groups=Groups(
            fields=("paper", "size"),
            by=(("paper",),),
            values={"paper": ("dark", "grey", "bright"), "size": ("small", "large")},
        ),
        notes=("The main score is the accuracy on the worst paper.",),
    ),
    _digits(
        name="digit_swaps",
        title="Swapped digits",
        kind="caption_choice",
        test=90,
        captions=180,
        main_metric="acc",
        chance=1 / 6,
    ),
    _digits(
        name="digit_riddles",
        title="Riddles about digits",
        kind="association",
        test=120,
        main_metric="jaccard_score_10-12",
        chance=0.1768,
    ),
    Entry(
        name="photos",
        title="Twenty photos",
        kind="retrieval",
        type="retrieval",
        test=20,
        captions=20,
        main_metric="mean_recall@1",
        chance=1 / 20,
        build="clip-eval build photos",
        source="scikit-image's data and scikit-learn's sample images",
        notes=("Too few to rank models; a model trained on the web that misses several is wired wrongly.",),
    ),
)
