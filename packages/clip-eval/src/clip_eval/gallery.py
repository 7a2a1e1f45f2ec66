"""Picks a few telling samples of a result and keeps small pictures of them, so that a report needs no data set."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clip_core.images import open_image
from clip_eval.tasks.result import SampleResult
from clip_eval.wds import WdsDataset, read_image_bytes

__all__ = ["Choice", "choose", "pictured", "save_gallery"]

_EDGE = 128


@dataclass(frozen=True, slots=True)
class Choice:
    """The samples worth a look."""

    confident: list[SampleResult]
    """Wrong ones whose first answer is the furthest ahead of the second, the surest first."""
    wrong: list[SampleResult]
    """Other wrong ones, spread evenly over the data set, in its order."""
    right: list[SampleResult]
    """Right ones, spread likewise."""

    @property
    def samples(self) -> list[SampleResult]:
        """All of them, in the order of the data set."""
        return sorted([*self.confident, *self.wrong, *self.right], key=lambda sample: sample.index)


def choose(samples: Sequence[SampleResult], *, right: int = 12, wrong: int = 12, confident: int = 12) -> Choice:
    """Up to so many of each kind. The same samples give the same choice.

    The surest mistakes show what a model has learnt wrongly, or a wrong label; those spread evenly show what its
    mistakes usually look like.
    """
    hits = [sample for sample in samples if sample.right]
    misses = [sample for sample in samples if not sample.right]
    surest = sorted(
        (sample for sample in misses if _lead(sample) > 0), key=lambda sample: (-_lead(sample), sample.index)
    )
    surest = surest[:confident]
    taken = {sample.index for sample in surest}
    others = [sample for sample in misses if sample.index not in taken]
    return Choice(surest, list(_spread(others, wrong)), list(_spread(hits, right)))


def _lead(sample: SampleResult) -> float:
    """How far the first answer is ahead of the second, in cosine similarity; 0 where nothing tells."""
    if len(sample.answers) < 2:
        return 0.0
    return sample.answers[0].similarity - sample.answers[1].similarity


def _spread(samples: Sequence[SampleResult], count: int) -> Iterable[SampleResult]:
    count = min(count, len(samples))
    return (samples[(2 * place + 1) * len(samples) // (2 * count)] for place in range(count))


def pictured(samples: Sequence[SampleResult], details: Mapping[str, Any]) -> list[int]:
    """Places in the data set of all pictures that a report shows: of the choice, and of searches by caption.

    `details["searches"]` is what a task states of a few captions: {"caption", "image" (the place of its picture),
    "rank", "answers": [{"image", "similarity"}]}.
    """
    places = {sample.index for sample in choose(samples).samples}
    for search in details.get("searches", ()):
        places.update([search["image"], *(answer["image"] for answer in search["answers"])])
    return sorted(places)


def save_gallery(
    folder: Path, dataset: WdsDataset, samples: Sequence[SampleResult], details: Mapping[str, Any] | None = None
) -> None:
    """Writes `<index>.png`, at most 128 pixels wide and high, for what is `pictured`; replaces the folder."""
    from PIL import Image

    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    for index in pictured(samples, details or {}):
        data, name = read_image_bytes(dataset.samples[index])
        image = open_image(data, name=name).convert("RGB")
        image.thumbnail((_EDGE, _EDGE), Image.Resampling.LANCZOS)
        image.save(folder / f"{index}.png", optimize=True)
