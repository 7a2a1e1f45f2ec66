"""DataComp's four scales: one procedure each, whichever way the pool was filtered.

Source: Gadre et al. (2023) and `scale_configs.py` of mlfoundations/datacomp. A run is cut into five parts, shards are
drawn with replacement. The filters make the data, not the procedure: point `train_data` at the filtered shards.
"""

from __future__ import annotations

from clip_train.recipes.recipe import Fields, recipe

__all__ = ["datacomp_large", "datacomp_medium", "datacomp_small", "datacomp_xlarge"]

_SOURCE = "Gadre et al. (2023); scale_configs.py of mlfoundations/datacomp"
_DIFFERS = "The number of processes is not part of the procedure; DataComp trains in float16 with a loss scaler."
_PARTS = 5


def _tags(model: str, scale: str, ending: str, filters: str) -> tuple[str, ...]:
    pools = [f"commonpool_{scale}_{name}_{ending}" for name in filters.split()]
    return tuple(f"{model}:{tag}" for tag in (f"datacomp_{scale}_{ending}", *pools, f"commonpool_{scale}_{ending}"))


def _scale(model: str, samples: int, lr: float, warmup: int) -> Fields:
    return {
        "model": model, "epochs": _PARTS, "train_num_samples": samples // _PARTS, "lr": lr, "warmup": warmup,
        "dataset_type": "webdataset", "dataset_resampled": True, "seed": 0,
    }  # fmt: skip


@recipe(
    source=_SOURCE,
    tags=_tags("ViT-B-32", "s", "s13m_b4k", "clip laion image text basic"),
    global_batch=4096,
    differs=_DIFFERS,
)
def datacomp_small() -> Fields:
    """DataComp's small scale: ViT-B/32, 12.8 million samples."""
    return _scale("ViT-B-32", 12_800_000, 5e-4, 500)


@recipe(
    source=_SOURCE,
    tags=_tags("ViT-B-32", "m", "s128m_b4k", "clip laion image text basic"),
    global_batch=4096,
    differs=_DIFFERS,
)
def datacomp_medium() -> Fields:
    """DataComp's medium scale: ViT-B/32, 128 million samples."""
    return _scale("ViT-B-32", 128_000_000, 5e-4, 500)


@recipe(
    source=_SOURCE,
    tags=_tags("ViT-B-16", "l", "s1b_b8k", "clip laion image text basic"),
    global_batch=8192,
    differs=_DIFFERS,
)
def datacomp_large() -> Fields:
    """DataComp's large scale: ViT-B/16, 1.28 billion samples."""
    return _scale("ViT-B-16", 1_280_000_000, 5e-4, 500)


@recipe(source=_SOURCE, tags=_tags("ViT-L-14", "xl", "s13b_b90k", "clip laion"), global_batch=90112, differs=_DIFFERS)
def datacomp_xlarge() -> Fields:
    """DataComp's xlarge scale: ViT-L/14, 12.8 billion samples."""
    return {**_scale("ViT-L-14", 12_800_000_000, 1e-3, 10_000), "beta2": 0.95}
