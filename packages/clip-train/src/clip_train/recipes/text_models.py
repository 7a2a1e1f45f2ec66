"""OpenCLIP's models whose text tower begins from a pretrained language model: RoBERTa and XLM-RoBERTa.

Sources: the model cards. They state samples and batch alone; learning rate, warm-up and the number of processes are
in reports of Weights & Biases that they name.
"""

from __future__ import annotations

from clip_train.recipes.recipe import Fields, recipe

__all__ = ["roberta_vit_b_32_laion2b", "xlm_roberta_base_vit_b_32_laion5b", "xlm_roberta_large_vit_h_14_laion5b"]

_OPEN = "Learning rate, warm-up, the number of processes and the samples of one round are not stated"

_LAION_5B: Fields = {"epochs": 1, "train_num_samples": 13_000_000_000, "pretrained_text": True}


@recipe(
    source="model card of laion/CLIP-ViT-B-32-roberta-base-laion2B-s12B-b32k",
    tags=("roberta-ViT-B-32:laion2b_s12b_b32k",),
    global_batch=32_000,
    differs=f"{_OPEN}; the card says 32k for the batch, which may be rounded.",
)
def roberta_vit_b_32_laion2b() -> Fields:
    """ViT-B/32 with a pretrained RoBERTa on LAION-2B, 12 billion samples."""
    return {"model": "roberta-ViT-B-32", "epochs": 1, "train_num_samples": 12_000_000_000, "pretrained_text": True}


@recipe(
    source="OpenCLIP's page of pretrained models; name of laion/CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k",
    tags=("xlm-roberta-base-ViT-B-32:laion5b_s13b_b90k",),
    global_batch=90_000,
    differs=f"{_OPEN}; the name says 90k for the batch, which may be rounded.",
)
def xlm_roberta_base_vit_b_32_laion5b() -> Fields:
    """ViT-B/32 with a pretrained XLM-RoBERTa base on LAION-5B, 13 billion samples."""
    return {**_LAION_5B, "model": "xlm-roberta-base-ViT-B-32"}


@recipe(
    source="model card of laion/CLIP-ViT-H-14-frozen-xlm-roberta-large-laion5B-s13B-b90k",
    tags=("xlm-roberta-large-ViT-H-14:frozen_laion5b_s13b_b90k",),
    global_batch=90_000,
    differs=f"{_OPEN}; the card says 90k for the batch, which may be rounded.",
    begins_from="the image tower of ViT-H-14:laion2b_s32b_b79k",
)
def xlm_roberta_large_vit_h_14_laion5b() -> Fields:
    """Locked-image tuning: a pretrained XLM-RoBERTa large learns to read for a frozen ViT-H/14, 13 billion samples."""
    return {**_LAION_5B, "model": "xlm-roberta-large-ViT-H-14", "lock_image": True}
