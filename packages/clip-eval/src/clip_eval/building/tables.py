"""A table with one row for each image, or for each caption of an image: CSV, TSV, JSON lines or parquet."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from clip_core.errors import ConfigError, DataError, nearest
from clip_eval.building.pictures import Example
from clip_eval.building.rows import Row, as_image, as_list, cell, read_rows
from clip_eval.building.source import Source

__all__ = ["table"]


def table(
    path: str | os.PathLike[str],
    *,
    image: str = "image",
    label: str | None = None,
    labels: str | None = None,
    captions: Sequence[str] = (),
    metadata: Sequence[str] = (),
    separator: str = "|",
    images: str | os.PathLike[str] | None = None,
    classnames: Sequence[str] = (),
    templates: Sequence[str] = (),
) -> Source:
    """A data set from the columns of a table. One of `label`, `labels` and `captions` says of which kind.

    Args:
        path: .csv, .tsv, .jsonl or .parquet.
        image: column of paths, or (parquet) of files' bytes or Hugging Face's `Image`.
        label: column of class names, or of numbers where `classnames` are given.
        labels: column of several of them, as a list or with `separator` between; multilabel.
        captions: columns of captions, each a text or a list; rows with the same path are one image. Retrieval.
        metadata: columns of numbers about the image.
        images: folder that the paths begin in; default the one of the table.
        classnames: in the order of the labels; default all that occur, sorted.

    Raises:
        ConfigError: not one kind.
        DataError: no such file, column or class.
    """
    source = Path(path)
    root = Path(images) if images is not None else source.parent
    if sum(map(bool, (label, labels, captions))) != 1:
        raise ConfigError(
            "Name the column of labels, or that of several labels, or the columns of captions: one of them."
        )
    if captions:
        return Source(kind="retrieval", examples=_captioned(source, image, captions, root))
    column = label or labels
    assert column is not None

    def values(row: Row) -> list[Any]:
        found = cell(row, column, source)
        return as_list(found, separator) if labels else [found]

    names = list(classnames) or _names(source, column, values)
    number = _numbering(names, source)

    def examples() -> Iterator[Example]:
        for row in read_rows(source, [image, column, *metadata]):
            found = [number(value) for value in values(row)]
            yield Example(
                image=as_image(cell(row, image, source), root),
                label=None if labels else found[0],
                present=found if labels else (),
                metadata=[_as_number(cell(row, field, source), field, source) for field in metadata],
            )

    return Source(
        kind="multilabel" if labels else "classification",
        examples=examples(),
        classnames=tuple(names),
        templates=tuple(templates),
        metadata_fields=tuple(metadata),
    )


def _captioned(source: Path, image: str, captions: Sequence[str], root: Path) -> Iterator[Example]:
    grouped: dict[Path, list[str]] = {}
    for row in read_rows(source, [image, *captions]):
        found = [str(text) for column in captions for text in as_list(cell(row, column, source))]
        picture = as_image(cell(row, image, source), root)
        if isinstance(picture, bytes):
            yield Example(image=picture, captions=found)
        else:
            grouped.setdefault(picture, []).extend(found)
    for picture, texts in grouped.items():
        yield Example(image=picture, captions=texts)


def _names(source: Path, column: str, values: Callable[[Row], list[Any]]) -> list[str]:
    found = {value for row in read_rows(source, [column]) for value in values(row)}
    if all(isinstance(value, int) or str(value).isdigit() for value in found):
        raise DataError(
            f"{source}: the column {column!r} holds numbers, which say nothing to a model. Give the class names in "
            "their order."
        )
    return sorted(map(str, found))


def _numbering(names: Sequence[str], source: Path) -> Callable[[Any], int]:
    """From what stands in a cell to its label: a name, or else a number."""
    places = {name: place for place, name in reversed(list(enumerate(names)))}

    def number(value: Any) -> int:
        text = str(value)
        if not isinstance(value, int) and text in places:
            return places[text]
        if text.isdigit() and int(text) < len(names):
            return int(text)
        close = nearest(text, names)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise DataError(f"{source}: {value!r} is none of the {len(names)} classes, and no number below.{hint}")

    return number


def _as_number(value: Any, field: str, source: Path) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise DataError(f"{source}: the column {field!r} holds {value!r}; metadata are numbers.") from None
