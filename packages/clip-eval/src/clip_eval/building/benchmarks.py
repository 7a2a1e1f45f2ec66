"""SugarCrepe, Winoground and WinoGAViL from the files that their authors publish."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clip_core.errors import DataError
from clip_eval.building.pictures import Example
from clip_eval.building.rows import Row, as_image, as_list, cell, read_rows
from clip_eval.building.source import Source
from clip_eval.wds import Association

__all__ = ["sugar_crepe", "winogavil", "winoground"]

_ENDINGS = ("", ".jpg", ".jpeg", ".png", ".webp")


def sugar_crepe(annotations: str | os.PathLike[str], images: str | os.PathLike[str]) -> Source:
    """One of SugarCrepe's files: {"0": {"filename", "caption", "negative_caption"}, ...}; the numbers may have gaps.

    images: the folder of COCO's val2017. The category is the file's name, "swap_att". Raises `DataError` for another
    file.
    """
    path, root = Path(annotations), Path(images)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable file of annotations ({error}).") from error
    if not isinstance(found, dict) or not found:
        raise DataError(f"{path}: must hold an object of examples, as SugarCrepe's files do.")

    def examples() -> Iterator[Example]:
        for key, entry in found.items():
            try:
                name, right, wrong = entry["filename"], entry["caption"], entry["negative_caption"]
            except (TypeError, KeyError) as error:
                raise DataError(f"{path}: the example {key!r} lacks {error}.") from error
            yield Example(image=root / name, captions=[right, wrong], right=0, example=str(key), category=path.stem)

    return Source(kind="caption_choice", examples=examples(), count=len(found))


def winoground(annotations: str | os.PathLike[str], images: str | os.PathLike[str] | None = None) -> Source:
    """Winoground's examples.jsonl with its folder of images, or a parquet file that holds the images too.

    Each row has id, image_0, image_1, caption_0, caption_1; its two images are two samples of one example. The category
    is collapsed_tag ("Object", "Relation", "Both") where there is one. Raises `DataError` for another table.
    """
    path = Path(annotations)
    root = Path(images) if images is not None else path.parent

    def examples() -> Iterator[Example]:
        for number, row in enumerate(read_rows(path)):
            captions = [str(cell(row, f"caption_{place}", path)) for place in (0, 1)]
            for place in (0, 1):
                yield Example(
                    image=_picture(cell(row, f"image_{place}", path), root, path),
                    captions=captions,
                    right=place,
                    example=str(row.get("id", number)),
                    category=str(row.get("collapsed_tag") or ""),
                )

    return Source(kind="caption_choice", examples=examples())


def winogavil(annotations: str | os.PathLike[str], images: str | os.PathLike[str] | None = None) -> Source:
    """WinoGAViL's table of riddles: columns cue, candidates and associations, both lists of images' names.

    images: the folder of images; without it the column candidate_images (parquet) holds them, in the order of the
    candidates. An image that several riddles use is stored once. Raises `DataError` for another table.
    """
    path = Path(annotations)
    root = Path(images) if images is not None else path.parent
    riddles: list[Association] = []
    places: dict[str, int] = {}
    columns = ["cue", "candidates", "associations"]
    for row in read_rows(path, columns):
        candidates, right = (_names(row, column, path) for column in columns[1:])
        strange = [name for name in right if name not in candidates]
        if strange:
            raise DataError(f"{path}: the riddle {row['cue']!r} names {strange[0]!r}, which is none of its candidates.")
        numbers = [places.setdefault(name, len(places)) for name in candidates]
        riddles.append(Association(str(cell(row, "cue", path)), tuple(numbers), tuple(places[name] for name in right)))

    def examples() -> Iterator[Example]:
        if images is not None:
            for name in places:
                yield Example(image=_picture(name, root, path))
            return
        seen = 0
        for row in read_rows(path, [*columns, "candidate_images"]):
            pictures = as_list(cell(row, "candidate_images", path))
            for name, picture in zip(_names(row, "candidates", path), pictures, strict=True):
                if places[name] == seen:
                    seen += 1
                    yield Example(image=as_image(picture, root))

    return Source(kind="association", examples=examples(), associations=tuple(riddles), count=len(places))


def _names(row: Row, column: str, path: Path) -> list[str]:
    found = [str(name) for name in as_list(cell(row, column, path))]
    if not found or len(set(found)) < len(found):
        raise DataError(f"{path}: a riddle's {column} are {found}; they must be some images, none of them twice.")
    return found


def _picture(value: Any, root: Path, path: Path) -> bytes | Path:
    """An image in a cell; a name may lack its ending."""
    found = as_image(value, root)
    if isinstance(found, bytes):
        return found
    for ending in _ENDINGS:
        candidate = found.with_name(found.name + ending)
        if candidate.is_file():
            return candidate
    raise DataError(f"{path}: names the image {found.name!r}, which is not in {found.parent}.")
