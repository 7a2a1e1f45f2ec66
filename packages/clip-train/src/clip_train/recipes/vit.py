"""OpenCLIP's ViTs on LAION-400M and LAION-2B.

Sources: OpenCLIP's page of pretrained models and README; the table of trained models of Cherti et al. (2023), in the
repository LAION-AI/scaling-laws-openclip; model cards. Weight decay 0.2, AdamW and the cosine schedule are
OpenCLIP's defaults and clip-train's.
"""

from __future__ import annotations

from clip_train.recipes.recipe import Fields, recipe

__all__ = [
    "vit_b_16_laion2b",
    "vit_b_16_laion400m",
    "vit_b_16_plus_240_laion400m",
    "vit_b_32_laion2b",
    "vit_b_32_laion2b_e16",
    "vit_b_32_laion400m",
    "vit_g_14_laion2b",
    "vit_g_14_laion2b_12b",
    "vit_h_14_laion2b",
    "vit_l_14_laion2b",
    "vit_l_14_laion400m",
]

_PAGE = "OpenCLIP's page of pretrained models"
_TABLE = "table of trained models of Cherti et al. (2023)"
_FLOAT16 = "OpenCLIP's default precision was then float16 with a loss scaler."


@recipe(
    source=f"{_PAGE}; the SLURM example of OpenCLIP's README",
    tags=("ViT-B-32:laion400m_e31", "ViT-B-32:laion400m_e32"),
    global_batch=32768,
    processes=128,
    differs=_FLOAT16,
)
def vit_b_32_laion400m() -> Fields:
    """ViT-B/32 (with OpenAI's activation) on LAION-400M, 32 rounds."""
    return {"model": "ViT-B-32-quickgelu", "epochs": 32, "lr": 5e-4, "warmup": 2000, "wd": 0.2}


@recipe(
    source=f"{_PAGE}; {_TABLE}",
    tags=("ViT-B-16:laion400m_e31", "ViT-B-16:laion400m_e32"),
    global_batch=33792,
    processes=176,
    differs=f"{_FLOAT16} Up to round 26 shards were not shuffled as they should have been.",
)
def vit_b_16_laion400m() -> Fields:
    """ViT-B/16 on LAION-400M, 32 rounds."""
    return {"model": "ViT-B-16", "epochs": 32, "train_num_samples": 407_332_084, "lr": 5e-4, "warmup": 10_000}


@recipe(
    source=_PAGE,
    tags=("ViT-B-16-plus-240:laion400m_e31", "ViT-B-16-plus-240:laion400m_e32"),
    global_batch=35840,
    processes=224,
    differs=f"Learning rate and warm-up are not stated. {_FLOAT16}",
)
def vit_b_16_plus_240_laion400m() -> Fields:
    """ViT-B/16+ at 240 pixels on LAION-400M, 32 rounds."""
    return {"model": "ViT-B-16-plus-240", "epochs": 32}


@recipe(
    source=_PAGE,
    tags=("ViT-L-14:laion400m_e31", "ViT-L-14:laion400m_e32"),
    global_batch=38400,
    processes=400,
    differs=f"Learning rate and warm-up are not stated. {_FLOAT16}",
)
def vit_l_14_laion400m() -> Fields:
    """ViT-L/14 on LAION-400M, 32 rounds."""
    return {"model": "ViT-L-14", "epochs": 32, "grad_checkpointing": True}


@recipe(
    source=_PAGE,
    tags=("ViT-B-32:laion2b_e16",),
    global_batch=46592,
    processes=112,
    differs="Learning rate, warm-up and the samples of one round are not stated; the 16 rounds are the tag's.",
)
def vit_b_32_laion2b_e16() -> Fields:
    """ViT-B/32 on LAION-2B, 16 rounds."""
    return {"model": "ViT-B-32", "epochs": 16}


@recipe(source=_TABLE, tags=("ViT-B-32:laion2b_s34b_b79k",), global_batch=79104, processes=824)
def vit_b_32_laion2b() -> Fields:
    """ViT-B/32 on LAION-2B, 34 billion samples."""
    return {"model": "ViT-B-32", "epochs": 256, "train_num_samples": 135_646_078, "lr": 1e-3, "warmup": 2000}


@recipe(source=_TABLE, tags=("ViT-B-16:laion2b_s34b_b88k",), global_batch=88064, processes=344)
def vit_b_16_laion2b() -> Fields:
    """ViT-B/16 on LAION-2B, 34 billion samples."""
    return {"model": "ViT-B-16", "epochs": 171, "train_num_samples": 200_092_953, "lr": 1e-3, "warmup": 10_000}


@recipe(
    source=f"{_TABLE}; {_PAGE} for the mean and the deviation",
    tags=("ViT-L-14:laion2b_s32b_b82k",),
    global_batch=86016,
    processes=384,
    differs="The name says 82k, a mean over the run: earlier parts had smaller batches.",
)
def vit_l_14_laion2b() -> Fields:
    """ViT-L/14 on LAION-2B, 32 billion samples, pixels from -1 to 1."""
    half = (0.5, 0.5, 0.5)
    return {
        "model": "ViT-L-14", "epochs": 160, "train_num_samples": 200_000_000, "lr": 1e-3, "warmup": 10_000,
        "image_mean": half, "image_std": half,
    }  # fmt: skip


@recipe(
    source=_TABLE,
    tags=("ViT-H-14:laion2b_s32b_b79k",),
    global_batch=79104,
    processes=824,
    differs="The table's 256 parts are 34.7 billion samples where the name says 32.",
)
def vit_h_14_laion2b() -> Fields:
    """ViT-H/14 on LAION-2B, 34 billion samples."""
    return {"model": "ViT-H-14", "epochs": 256, "train_num_samples": 135_646_078, "lr": 5e-4, "warmup": 2000}


@recipe(
    source=_TABLE,
    tags=("ViT-g-14:laion2b_s12b_b42k",),
    global_batch=64000,
    processes=800,
    differs="The name says 42k where the table has 800 processes of 80.",
)
def vit_g_14_laion2b_12b() -> Fields:
    """ViT-g/14 on LAION-2B, 12 billion samples."""
    return {"model": "ViT-g-14", "epochs": 90, "train_num_samples": 135_646_078, "lr": 5e-4, "warmup": 2000}


@recipe(
    source="model card of laion/CLIP-ViT-g-14-laion2B-s34B-b88K",
    tags=("ViT-g-14:laion2b_s34b_b88k",),
    global_batch=88800,
    processes=1480,
    differs="The card rounds a round's samples to 135 million.",
)
def vit_g_14_laion2b() -> Fields:
    """ViT-g/14 on LAION-2B, 34.5 billion samples."""
    return {
        "model": "ViT-g-14", "epochs": 256, "train_num_samples": 135_000_000, "lr": 1e-3, "warmup": 13_500, "wd": 0.2,
        "lr_scheduler": "cosine",
    }  # fmt: skip
