"""ImageNet as people have it on disk: a folder with a folder for each class, or the shards of clip-eval.

Images stay in their files. What this room leaves out: scores (`clip_eval`).
"""

from __future__ import annotations

import logging
from pathlib import Path

from clip_core.errors import DataError
from clip_eval.prompts import prompts_for
from clip_eval.running import Wanted, open_selected
from clip_eval.selection import Selected, select
from clip_eval.wds import IMAGE_EXTENSIONS, Sample, WdsDataset

__all__ = ["open_classes", "open_imagenet"]

_log = logging.getLogger(__name__)

_IMAGENET = 1000


def open_imagenet(address: str, name: str) -> WdsDataset:
    """ImageNet in the folder `address`, as class folders or as wds shards, or at an address that clip-eval knows.

    Raises `DataError`, `ConfigError` where there is nothing of the kind.
    """
    folder = Path(address)
    if folder.is_dir() and not list(folder.glob("*/nshards.txt")):
        return open_classes(folder, name)
    if folder.is_dir():
        from clip_eval.catalogue import lookup

        chosen = Selected(name=name, address=str(folder), entry=lookup(name))
    else:
        (chosen,) = select([address])
    return open_selected(chosen, Wanted(any_size=True))


def open_classes(folder: Path, name: str) -> WdsDataset:
    """A folder of class folders, as torchvision's ImageFolder reads it.

    A thousand classes are ImageNet's, with its names and prompts. Folders that are called by numbers, as those of
    ImageNet v2, are in the order of the numbers; others in that of their names. Any other number of classes is called
    by the folders.

    Raises `DataError` for a folder without class folders, and a class without an image.
    """
    places = [place for place in folder.iterdir() if place.is_dir() and not place.name.startswith(".")]
    if not places:
        raise DataError(f"{folder} has no folders of classes and no shards; give ImageNet's folder of 1000 folders.")
    by_number = all(place.name.isdecimal() for place in places)
    places.sort(key=lambda place: int(place.name) if by_number else place.name)
    words = prompts_for("imagenet1k")
    names = words.classnames if len(places) == _IMAGENET else None
    if names is None:
        _log.warning("%s has %d classes, not ImageNet's 1000: they are called by their folders", folder, len(places))
        names = tuple(place.name.replace("_", " ") for place in places)
    samples: list[Sample] = []
    labels: list[int] = []
    for label, place in enumerate(places):
        images = sorted(
            path for path in place.rglob("*") if path.suffix.lower().lstrip(".") in IMAGE_EXTENSIONS and path.is_file()
        )
        if not images:
            raise DataError(f"{place} holds no image (.{', .'.join(IMAGE_EXTENSIONS)}), so the class would be empty.")
        for path in images:
            extension = path.suffix.lower().lstrip(".")
            key = f"{place.name}/{path.stem}"
            samples.append(Sample(str(path), key, {extension: (0, path.stat().st_size)}))
            labels.append(label)
    assert words.templates is not None
    return WdsDataset(
        name=name,
        folder=folder,
        split="test",
        kind="classification",
        samples=tuple(samples),
        classnames=names,
        templates=tuple(words.templates),
        labels=tuple(labels),
    )
