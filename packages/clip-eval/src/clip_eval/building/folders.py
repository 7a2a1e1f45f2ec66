"""A folder of images with one sub-folder for each class, as torchvision's ImageFolder reads it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from clip_core.errors import DataError
from clip_eval.building.pictures import Example
from clip_eval.building.source import Source

__all__ = ["image_folder"]

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".gif", ".avif")


def image_folder(
    folder: str | os.PathLike[str], *, classnames: Sequence[str] = (), templates: Sequence[str] = ()
) -> Source:
    """One class for each sub-folder, in the order of their names; images of deeper folders belong to it too.

    classnames: what the classes are called, in that order; default the sub-folders' names. Raises `DataError` when
    there is no image, a class without one, or another number of names than of classes.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder.")
    classes = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise DataError(f"{root}: has no sub-folders. There must be one for each class, with its images.")
    if classnames and len(classnames) != len(classes):
        raise DataError(f"{root}: has {len(classes)} sub-folders, and {len(classnames)} class names are given.")
    found: list[tuple[Path, int]] = []
    for label, place in enumerate(classes):
        images = sorted(path for path in place.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
        if not images:
            raise DataError(f"{place}: holds no image ({', '.join(_SUFFIXES)}), so the class would be empty.")
        found.extend((path, label) for path in images)
    return Source(
        kind="classification",
        examples=(Example(image=path, label=label) for path, label in found),
        classnames=tuple(classnames) or tuple(place.name for place in classes),
        templates=tuple(templates),
        count=len(found),
    )
