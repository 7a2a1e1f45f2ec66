"""EVA-CLIP: a masked-image ViT and a CLIP text tower trained on together.

Source: the commands of EVA-CLIP's README (Sun et al. 2023). They give the image tower, the text tower and the rest a
learning rate each; here there is one, the image tower's, and the layers of each tower decay as theirs do.
"""

from __future__ import annotations

from clip_train.recipes.recipe import Fields, recipe

__all__ = [
    "eva01_g_14_plus_merged2b",
    "eva02_b_16_merged2b",
    "eva02_e_14_laion2b",
    "eva02_e_14_plus_laion2b",
    "eva02_l_14_336_merged2b",
    "eva02_l_14_merged2b",
]

_SOURCE = "EVA-CLIP's README"


def _differs(text: str) -> str:
    return (
        f"The text tower had {text} and the rest 5e-4 for learning rates; here all have the image tower's. It trained "
        "in float16 under DeepSpeed."
    )


def _fields(model: str, lr: float, epochs: int, image_decay: float, text_decay: float, dropout: float = 0.0) -> Fields:
    return {
        "model": model, "epochs": epochs, "train_num_samples": 40_000_000, "dataset_type": "webdataset",
        "dataset_resampled": True, "opt": "timm/lamb", "lr": lr, "wd": 0.05, "warmup": 2000, "grad_clip_norm": 5.0,
        "image_layer_decay": image_decay, "text_layer_decay": text_decay, "force_patch_dropout": dropout,
        "grad_checkpointing": True, "seed": 4096,
    }  # fmt: skip


@recipe(
    source=_SOURCE,
    tags=("EVA01-g-14-plus:merged2b_s11b_b114k",),
    global_batch=114_688,
    processes=112,
    differs=f"The command sees 4 billion samples where the name says 11. {_differs('4e-5')}",
    begins_from="the image tower EVA01-g and the text tower of ViT-H-14",
)
def eva01_g_14_plus_merged2b() -> Fields:
    """EVA01-g/14+ on Merged-2B."""
    return _fields("EVA01-g-14-plus", 4e-4, 100, 0.85, 0.75, 0.5)


@recipe(
    source=_SOURCE,
    tags=("EVA02-B-16:merged2b_s8b_b131k",),
    global_batch=131_072,
    processes=64,
    differs=_differs("2e-5"),
    begins_from="the image tower EVA02-B and the text tower of OpenAI's ViT-B-16",
)
def eva02_b_16_merged2b() -> Fields:
    """EVA02-B/16 on Merged-2B, 8 billion samples."""
    return _fields("EVA02-B-16", 2e-4, 200, 0.75, 0.75)


@recipe(
    source=_SOURCE,
    tags=("EVA02-L-14:merged2b_s4b_b131k",),
    global_batch=131_072,
    processes=128,
    differs=_differs("4e-5"),
    begins_from="the image tower EVA02-L and the text tower of OpenAI's ViT-L-14",
)
def eva02_l_14_merged2b() -> Fields:
    """EVA02-L/14 on Merged-2B, 4 billion samples."""
    return _fields("EVA02-L-14", 4e-4, 100, 0.85, 0.75)


@recipe(
    source=_SOURCE,
    tags=("EVA02-L-14-336:merged2b_s6b_b61k",),
    global_batch=61_440,
    processes=128,
    differs=_differs("4e-5"),
    begins_from="EVA02-L-14:merged2b_s4b_b131k, its positions resized",
)
def eva02_l_14_336_merged2b() -> Fields:
    """EVA02-L/14 at 336 pixels on Merged-2B, 2 billion samples more."""
    return _fields("EVA02-L-14-336", 4e-4, 50, 0.75, 0.65)


@recipe(
    source=_SOURCE,
    tags=("EVA02-E-14:laion2b_s4b_b115k",),
    global_batch=115_200,
    processes=144,
    differs=_differs("4e-5"),
    begins_from="the image tower EVA02-E and the text tower of ViT-H-14:laion2b_s32b_b79k",
)
def eva02_e_14_laion2b() -> Fields:
    """EVA02-E/14 on LAION-2B, 4 billion samples."""
    return _fields("EVA02-E-14", 4e-4, 100, 0.9, 0.75, 0.5)


@recipe(
    source=_SOURCE,
    tags=("EVA02-E-14-plus:laion2b_s9b_b144k",),
    global_batch=144_000,
    processes=144,
    differs="The command sees 4 billion samples where the name says 9. " + _differs("4e-5"),
    begins_from="the image tower EVA02-E and the text tower of ViT-bigG-14:laion2b_s39b_b160k",
)
def eva02_e_14_plus_laion2b() -> Fields:
    """EVA02-E/14+ on LAION-2B."""
    return _fields("EVA02-E-14-plus", 4e-4, 100, 0.9, 0.75, 0.5)
