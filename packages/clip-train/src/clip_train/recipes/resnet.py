"""OpenCLIP's ResNets on YFCC-15M and CC12M.

Sources: OpenCLIP's page of pretrained models, which refers to the README's "Sample running code" with another learning
rate and number of rounds.
"""

from __future__ import annotations

from clip_train.recipes.recipe import Fields, recipe

__all__ = ["rn101_yfcc15m", "rn50_cc12m", "rn50_yfcc15m"]

_SOURCE = 'OpenCLIP\'s page of pretrained models; "Sample running code" of its README'
_SAMPLE: Fields = {"wd": 0.1, "warmup": 10_000, "lr": 5e-4, "epochs": 32}


@recipe(source=_SOURCE, tags=("RN50:yfcc15m",), global_batch=1024, processes=8)
def rn50_yfcc15m() -> Fields:
    """ResNet-50 on YFCC-15M, 32 rounds."""
    return {**_SAMPLE, "model": "RN50-quickgelu"}


@recipe(source=_SOURCE, tags=("RN101:yfcc15m",), global_batch=1024, processes=8)
def rn101_yfcc15m() -> Fields:
    """ResNet-101 on YFCC-15M, 32 rounds."""
    return {**_SAMPLE, "model": "RN101-quickgelu"}


@recipe(
    source="the torchrun example of OpenCLIP's README",
    tags=("RN50:cc12m",),
    global_batch=1280,
    processes=4,
    differs="OpenCLIP publishes the weights without their settings: these are those of its example on this data, whose "
    "learning rate, warm-up and rounds are defaults.",
)
def rn50_cc12m() -> Fields:
    """ResNet-50 on CC12M."""
    return {"model": "RN50-quickgelu", "dataset_type": "webdataset", "train_num_samples": 10_968_539}
