"""OpenCLIP's ConvNeXts: base and large at 256 and 320 pixels, xxlarge and its rewound end.

Sources: the model cards, three of which print their commands. Stochastic depth of 0.1 is part of the architectures.
"""

from __future__ import annotations

from clip_train.recipes.recipe import Fields, recipe

__all__ = [
    "convnext_base_w_320_laion_aesthetic",
    "convnext_base_w_320_laion_aesthetic_augreg",
    "convnext_base_w_laion2b",
    "convnext_base_w_laion2b_augreg",
    "convnext_base_w_laion_aesthetic",
    "convnext_large_d_320_ft",
    "convnext_large_d_320_ft_1e4",
    "convnext_large_d_320_ft_6e5",
    "convnext_large_d_laion2b_augreg",
    "convnext_xxlarge_laion2b_augreg",
    "convnext_xxlarge_laion2b_augreg_rewind",
]

_BASE = "model card of laion/CLIP-convnext_base_w-laion2B-s13B-b82K"
_LARGE = "model card of laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup"
_XXLARGE = "model card of laion/CLIP-convnext_xxlarge-laion2B-s34B-b82K-augreg"
_INTERVAL = 203_666_042
_COMMON: Fields = {"dataset_type": "webdataset", "dataset_resampled": True, "grad_clip_norm": 5.0, "seed": 0,
                   "grad_checkpointing": True, "precision": "amp_bf16"}  # fmt: skip
_AUGMENTED: Fields = {"aug_cfg": {"use_timm": True, "scale": (0.33, 1.0), "re_prob": 0.35}}


def _base(model: str) -> Fields:
    return {**_COMMON, "model": model, "epochs": 64, "train_num_samples": _INTERVAL, "lr": 1e-3, "warmup": 10_000}


@recipe(source=_BASE, tags=("convnext_base_w:laion2b_s13b_b82k",), global_batch=81920, processes=160)
def convnext_base_w_laion2b() -> Fields:
    """ConvNeXt-Base (W) at 256 pixels on LAION-2B, 13 billion samples."""
    return _base("convnext_base_w")


@recipe(
    source=_BASE,
    tags=("convnext_base_w:laion2b_s13b_b82k_augreg",),
    global_batch=81920,
    processes=160,
    differs="The card states the augmentation as a table, not as a command; use_timm is that of its sisters.",
)
def convnext_base_w_laion2b_augreg() -> Fields:
    """ConvNeXt-Base (W) at 256 pixels on LAION-2B with more augmentation, 13 billion samples."""
    return {**_base("convnext_base_w"), **_AUGMENTED}


@recipe(source=_BASE, tags=("convnext_base_w:laion_aesthetic_s13b_b82k",), global_batch=81920, processes=160)
def convnext_base_w_laion_aesthetic() -> Fields:
    """ConvNeXt-Base (W) at 256 pixels on LAION-Aesthetic, 13 billion samples."""
    return _base("convnext_base_w")


@recipe(source=_BASE, tags=("convnext_base_w_320:laion_aesthetic_s13b_b82k",), global_batch=81920, processes=256)
def convnext_base_w_320_laion_aesthetic() -> Fields:
    """ConvNeXt-Base (W) at 320 pixels on LAION-Aesthetic, 13 billion samples."""
    return _base("convnext_base_w_320")


@recipe(
    source=_BASE,
    tags=("convnext_base_w_320:laion_aesthetic_s13b_b82k_augreg",),
    global_batch=81920,
    processes=256,
    differs="The card states the augmentation as a table, not as a command; use_timm is that of its sisters.",
)
def convnext_base_w_320_laion_aesthetic_augreg() -> Fields:
    """ConvNeXt-Base (W) at 320 pixels on LAION-Aesthetic with more augmentation, 13 billion samples."""
    return {**_base("convnext_base_w_320"), **_AUGMENTED}


@recipe(
    source=f"{_LARGE}; name of laion/CLIP-convnext_large_d.laion2B-s26B-b102K-augreg",
    tags=("convnext_large_d:laion2b_s26b_b102k_augreg",),
    global_batch=102_400,
    differs="Learning rate, warm-up and the number of processes are not stated here; 26 billion samples are the 128 "
    "intervals whose last checkpoint the fine-tunes begin from, and the name says 102k for the batch. The image "
    "tower's head had dropout 0.1.",
)
def convnext_large_d_laion2b_augreg() -> Fields:
    """ConvNeXt-Large (D) at 256 pixels on LAION-2B with augmentation and regularisation, 26 billion samples."""
    return {**_COMMON, **_AUGMENTED, "model": "convnext_large_d", "epochs": 128, "train_num_samples": _INTERVAL}


def _fine_tune(lr: float, epochs: int) -> Fields:
    return {
        **_COMMON, "model": "convnext_large_d_320", "epochs": epochs,
        "train_num_samples": _INTERVAL, "lr": lr, "warmup": 2000, "beta2": 0.98,
        "aug_cfg": {"use_timm": True, "scale": (0.5, 1.0), "re_prob": 0.4},
    }  # fmt: skip


_FIRST = "convnext_large_d:laion2b_s26b_b102k_augreg"


@recipe(
    source=_LARGE,
    tags=("convnext_large_d_320:laion2b_s29b_b131k_ft", "convnext_large_d_320:laion2b_s29b_b131k_ft_soup"),
    global_batch=131_072,
    processes=512,
    begins_from=_FIRST,
    differs="The soup is the average of the three fine-tunes: clip-hub soup.",
)
def convnext_large_d_320_ft() -> Fields:
    """Fine-tune of ConvNeXt-Large (D) at 320 pixels, learning rate 5e-5, 2.5 billion samples."""
    return _fine_tune(5e-5, 12)


@recipe(
    source=_LARGE,
    tags=("convnext_large_d_320:laion2b_s29b_b131k_ft_soup",),
    global_batch=131_072,
    processes=512,
    begins_from=_FIRST,
)
def convnext_large_d_320_ft_6e5() -> Fields:
    """Fine-tune of ConvNeXt-Large (D) at 320 pixels, learning rate 6e-5, 2 billion samples."""
    return _fine_tune(6e-5, 10)


@recipe(
    source=_LARGE,
    tags=("convnext_large_d_320:laion2b_s29b_b131k_ft_soup",),
    global_batch=131_072,
    processes=512,
    begins_from=_FIRST,
)
def convnext_large_d_320_ft_1e4() -> Fields:
    """Fine-tune of ConvNeXt-Large (D) at 320 pixels, learning rate 1e-4, 3.2 billion samples."""
    return _fine_tune(1e-4, 16)


def _xxlarge(lr: float, scale: tuple[float, float], erasing: float) -> Fields:
    return {
        **_COMMON, "model": "convnext_xxlarge", "epochs": 256, "train_num_samples": 135_646_078, "lr": lr,
        "warmup": 10_000, "beta2": 0.98, "aug_cfg": {"use_timm": True, "scale": scale, "re_prob": erasing},
    }  # fmt: skip


@recipe(
    source=_XXLARGE,
    tags=("convnext_xxlarge:laion2b_s34b_b82k_augreg", "convnext_xxlarge:laion2b_s34b_b82k_augreg_soup"),
    global_batch=81920,
    processes=1024,
    differs="Its first 75 intervals ran in float16 with beta2 0.97. The soup is the average with the rewound run: "
    "clip-hub soup.",
)
def convnext_xxlarge_laion2b_augreg() -> Fields:
    """ConvNeXt-XXLarge at 256 pixels on LAION-2B, 34 billion samples."""
    return _xxlarge(1e-3, (0.33, 1.0), 0.35)


@recipe(
    source=_XXLARGE,
    tags=("convnext_xxlarge:laion2b_s34b_b82k_augreg_rewind", "convnext_xxlarge:laion2b_s34b_b82k_augreg_soup"),
    global_batch=95744,
    processes=1088,
    begins_from="the 230th of the 256 intervals of convnext_xxlarge_laion2b_augreg",
    differs="It goes on from a checkpoint of the first run, state of the optimiser included, with another batch. From "
    "weights alone give --epochs 26, the intervals that are left, and another --warmup.",
)
def convnext_xxlarge_laion2b_augreg_rewind() -> Fields:
    """ConvNeXt-XXLarge: the last tenth again, with a larger batch, a higher learning rate and more augmentation."""
    return _xxlarge(2e-3, (0.3, 1.0), 0.4)
