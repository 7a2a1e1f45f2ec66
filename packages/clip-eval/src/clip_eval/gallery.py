"""Picks a few telling samples of a result and keeps small pictures of them, so that a report needs no data set."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from clip_core.images import open_image
from clip_eval.tasks.result import SampleResult
from clip_eval.wds import WdsDataset, read_image_bytes

__all__ = ["choose", "save_gallery"]

_EDGE = 128


def choose(samples: list[SampleResult], *, right: int = 12, wrong: int = 12) -> list[SampleResult]:
    """Up to `wrong` wrongly and `right` rightly answered samples, spread evenly over the data set, in its order."""
    hits = [sample for sample in samples if sample.right]
    misses = [sample for sample in samples if not sample.right]
    chosen = [*_spread(hits, right), *_spread(misses, wrong)]
    return sorted(chosen, key=lambda sample: sample.index)


def _spread(samples: list[SampleResult], count: int) -> Iterable[SampleResult]:
    count = min(count, len(samples))
    return (samples[(2 * place + 1) * len(samples) // (2 * count)] for place in range(count))


def save_gallery(folder: Path, dataset: WdsDataset, samples: list[SampleResult]) -> None:
    """Writes `<index>.png`, at most 128 pixels wide and high, for the chosen samples; replaces the folder."""
    from PIL import Image

    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    for sample in choose(samples):
        data, name = read_image_bytes(dataset.samples[sample.index])
        image = open_image(data, name=name).convert("RGB")
        image.thumbnail((_EDGE, _EDGE), Image.Resampling.LANCZOS)
        image.save(folder / f"{sample.index}.png", optimize=True)
