"""OpenCLIP's CoCas: pretraining on LAION-2B and fine-tuning to write captions of COCO.

Sources: the names of the weights, which state samples and batch alone; the command of OpenCLIP's README.
"""

from __future__ import annotations

from clip_train.recipes.recipe import Fields, recipe

__all__ = ["coca_vit_b_32_laion2b", "coca_vit_l_14_coco", "coca_vit_l_14_laion2b"]

_OPEN = (
    "Learning rate, warm-up, the number of processes and the samples of one round are not stated; the name says 90k "
    "for the batch, which may be rounded. The weights of both losses are OpenCLIP's defaults."
)
_LAION_2B: Fields = {"epochs": 1, "train_num_samples": 13_000_000_000}


@recipe(
    source="name of laion/CoCa-ViT-B-32-laion2B-s13B-b90k",
    tags=("coca_ViT-B-32:laion2b_s13b_b90k",),
    global_batch=90_000,
    differs=_OPEN,
)
def coca_vit_b_32_laion2b() -> Fields:
    """CoCa with a ViT-B/32 on LAION-2B, 13 billion samples."""
    return {**_LAION_2B, "model": "coca_ViT-B-32"}


@recipe(
    source="name of laion/CoCa-ViT-L-14-laion2B-s13B-b90k",
    tags=("coca_ViT-L-14:laion2b_s13b_b90k",),
    global_batch=90_000,
    differs=_OPEN,
)
def coca_vit_l_14_laion2b() -> Fields:
    """CoCa with a ViT-L/14 on LAION-2B, 13 billion samples."""
    return {**_LAION_2B, "model": "coca_ViT-L-14"}


@recipe(
    source="OpenCLIP's README, on fine-tuning CoCa",
    tags=("coca_ViT-L-14:mscoco_finetuned_laion2b_s13b_b90k",),
    global_batch=128,
    processes=1,
    differs="OpenCLIP calls it a general setting: that the weights were trained with just this is not stated.",
)
def coca_vit_l_14_coco() -> Fields:
    """CoCa with a ViT-L/14 learns to write captions from a csv file of COCO's, without the contrastive loss."""
    return {
        "model": "coca_ViT-L-14", "pretrained": "laion2b_s13b_b90k", "dataset_type": "csv", "epochs": 1, "lr": 1e-5,
        "wd": 0.1, "warmup": 1000, "coca_contrastive_loss_weight": 0.0, "coca_caption_loss_weight": 1.0,
    }  # fmt: skip
