"""Which caption fits which image, where only the order or a single word differs; and WinoGAViL's associations."""

from __future__ import annotations

from functools import partial

from clip_eval.catalogue.entry import Entry

__all__ = ["ENTRIES", "SUGAR_CREPE"]

SUGAR_CREPE = {
    "add_att": ("Add Attribute", 692),
    "add_obj": ("Add Object", 2_062),
    "replace_att": ("Replace Attribute", 788),
    "replace_obj": ("Replace Object", 1_652),
    "replace_rel": ("Replace Relation", 1_406),
    "swap_att": ("Swap Attribute", 666),
    "swap_obj": ("Swap Object", 245),
}
"""SugarCrepe's seven parts: title, number of examples."""

_choice = partial(Entry, kind="caption_choice", type="compositional")

ENTRIES: tuple[Entry, ...] = (
    *(
        _choice(
            name=f"sugar_crepe/{part}",
            title=f"SugarCrepe {title}",
            test=examples,
            captions=2 * examples,
            main_metric="text_acc",
            chance=0.5,
            source="Hsieh et al. 2023, github.com/RAIVNLab/sugar-crepe; images of COCO's val2017",
            licence="MIT (captions)",
            notes=(
                "A tie is a miss, as in the official script. CLIP_benchmark counts ties as right, because the right "
                "caption stands first, and its image_acc is always 1: there is one image.",
            ),
        )
        for part, (title, examples) in SUGAR_CREPE.items()
    ),
    _choice(
        name="winoground",
        title="Winoground",
        test=400,
        captions=800,
        main_metric="acc",
        chance=1 / 6,
        source="Thrush et al. 2022, Hub facebook/winoground (gated)",
        notes=("Two images and two captions in each example; acc needs both captions and both images to be right.",),
    ),
    Entry(
        name="winogavil",
        title="WinoGAViL",
        kind="association",
        type="retrieval",
        test=3_563,
        main_metric="jaccard_score_10-12",
        chance=0.205,
        aliases=("misc/winogavil",),
        datacomp="misc/winogavil",
        source="Bitton et al. 2022, Hub nlphuji/winogavil",
        licence="CC BY 4.0",
        notes=("The main score is that of the riddles with 10 or 12 candidates.",),
    ),
)
