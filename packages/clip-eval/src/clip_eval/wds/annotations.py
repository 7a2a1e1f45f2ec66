"""What stands beside an image in a shard: its label, its labels, its captions, numbers about it, the right caption.

    .cls    label: a whole number                                                     classification
    .npy    a vector of C zeros and ones                                              multilabel
            F numbers about the image, beside .cls or alone                           classification
    .txt    captions, one per line                                                    retrieval, caption choice
    .json   {"right": place of the right caption, "example": name, "category": name}  caption choice

The `.json` and `associations.jsonl`, one line {"cue": word, "candidates": [key, ...], "right": [key, ...]} per riddle,
are ours: the layout that CLIP_benchmark writes has no place for Winoground, SugarCrepe and WinoGAViL.
What is not here: which of them a data set has (`opening`).
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clip_core.errors import DataError
from clip_eval.wds.dataset import Association
from clip_eval.wds.tars import Sample, read_each
from clip_eval.wds.text_files import decode, read_lines

__all__ = ["read_associations", "read_captions", "read_choices", "read_labels", "read_present", "read_vectors"]


def read_labels(samples: Sequence[Sample], classes: int) -> tuple[int, ...]:
    """N labels in [0, classes)."""
    pairs = zip(samples, read_each(samples, "cls"), strict=True)
    return tuple(_label(sample, data, classes) for sample, data in pairs)


def read_present(samples: Sequence[Sample], classes: int) -> tuple[tuple[int, ...], ...]:
    """N tuples of labels in [0, classes), ascending, of the classes that are in the image."""
    found = []
    for sample, row in zip(samples, _vectors(samples), strict=True):
        if len(row) != classes:
            raise DataError(
                f"{sample.shard}: {sample.key}.npy has {len(row)} entries, but classnames.txt names {classes} classes. "
                "Images and class names belong to different sets, or a blank name was dropped."
            )
        if not set(row) <= {0.0, 1.0}:
            strange = next(value for value in row if value not in (0.0, 1.0))
            raise DataError(
                f"{sample.shard}: {sample.key}.npy holds {strange:g}; allowed: 1 for a class that is there, 0 for one "
                "that is not."
            )
        found.append(tuple(label for label, value in enumerate(row) if value))
    return tuple(found)


def read_vectors(samples: Sequence[Sample]) -> tuple[tuple[float, ...], ...]:
    """N rows of numbers, all of one length."""
    rows = list(_vectors(samples))
    for sample, row in zip(samples, rows, strict=True):
        if len(row) != len(rows[0]):
            raise DataError(
                f"{sample.shard}: {sample.key}.npy has {len(row)} numbers, and the first sample's {len(rows[0])}; all "
                "samples of a set have equally many."
            )
    return tuple(rows)


def read_captions(samples: Sequence[Sample]) -> tuple[tuple[str, ...], ...]:
    """N tuples of captions."""
    return tuple(_captions(sample, data) for sample, data in zip(samples, read_each(samples, "txt"), strict=True))


def read_choices(
    samples: Sequence[Sample], captions: Sequence[Sequence[str]]
) -> tuple[tuple[int, ...], tuple[str, ...], tuple[str, ...]]:
    """N places of the right caption among the image's own, N names of examples, N categories or none at all."""
    right, examples, categories = [], [], []
    for sample, data, own in zip(samples, read_each(samples, "json"), captions, strict=True):
        name = f"{sample.shard}: {sample.key}.json"
        choice = _object(decode(data, name), name)
        place = choice.get("right")
        if type(place) is not int or not 0 <= place < len(own):
            raise DataError(f"{name}: 'right' is the place of the right caption, 0 to {len(own) - 1}, not {place!r}.")
        if len(own) < 2:
            raise DataError(f"{name}: {sample.key}.txt has one caption, so there is nothing to choose.")
        right.append(place)
        examples.append(_text(choice, "example", sample.key, name))
        categories.append(_text(choice, "category", "", name))
    return tuple(right), tuple(examples), tuple(categories) if any(categories) else ()


def read_associations(path: Path, samples: Sequence[Sample]) -> tuple[Association, ...]:
    """The riddles of `associations.jsonl` about the images of `samples`, which it names by their keys."""
    places = {sample.key: place for place, sample in enumerate(samples)}
    if len(places) < len(samples):
        raise DataError(f"{path}: names images by their keys, but the shards hold a key twice. Write them again.")
    found = []
    for number, line in enumerate(read_lines(path), 1):
        name = f"{path}: line {number}"
        riddle = _object(line, name)
        cue = riddle.get("cue")
        if not isinstance(cue, str) or not cue.strip():
            raise DataError(f"{name}: 'cue' is a word, not {cue!r}.")
        candidates = _keys(riddle, "candidates", places, name)
        right = _keys(riddle, "right", places, name)
        if not set(right) < set(candidates):
            raise DataError(f"{name}: 'right' names some of the candidates, not all of them and no other image.")
        found.append(Association(cue, candidates, right))
    if not found:
        raise DataError(f"{path}: holds no riddle.")
    return tuple(found)


def _label(sample: Sample, data: bytes, classes: int) -> int:
    text = data.decode("ascii", errors="replace").strip()
    if not (text.isascii() and text.isdigit()):
        raise DataError(f"{sample.shard}: {sample.key}.cls must hold one whole number, the label, not {text!r}.")
    label = int(text)
    if label >= classes:
        raise DataError(
            f"{sample.shard}: {sample.key}.cls holds the label {label}, but classnames.txt names {classes} classes "
            f"(0 to {classes - 1}). Images and class names belong to different sets, or a blank name was dropped."
        )
    return label


def _vectors(samples: Sequence[Sample]) -> Iterator[tuple[float, ...]]:
    return (_vector(sample, data) for sample, data in zip(samples, read_each(samples, "npy"), strict=True))


def _vector(sample: Sample, data: bytes) -> tuple[float, ...]:
    import numpy as np

    name = f"{sample.shard}: {sample.key}.npy"
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        raise DataError(f"{name} is not a readable array ({error}).") from error
    if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind not in "biuf":
        raise DataError(f"{name} must hold one row of numbers.")
    row = tuple(float(value) for value in array.tolist())
    if not all(map(math.isfinite, row)):
        raise DataError(f"{name} holds numbers that are not finite.")
    return row


def _captions(sample: Sample, data: bytes) -> tuple[str, ...]:
    """Captions are joined by a line feed and by nothing else: U+2028 and its like stand inside captions.

    Line ends after the last caption begin no other one. A blank line before it is an error: as a caption it would be
    a query that no image answers.

    The layout writes a line break inside a caption as backslash and n and its readers keep these two characters, so
    published numbers include them; they are kept here too.
    """
    text = decode(data, f"{sample.shard}: {sample.key}.txt")
    if not text.strip():
        raise DataError(f"{sample.shard}: the sample {sample.key!r} has no caption; {sample.key}.txt is blank.")
    captions = tuple(line.removesuffix("\r") for line in text.rstrip("\r\n").split("\n"))
    for number, caption in enumerate(captions, 1):
        if not caption.strip():
            raise DataError(
                f"{sample.shard}: {sample.key}.txt: the caption in line {number} of {len(captions)} is blank. Every "
                "line is a caption; remove the blank ones and write the shard again."
            )
    return captions


def _object(text: str, name: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DataError(f"{name}: not valid JSON ({error}).") from error
    if not isinstance(found, dict):
        raise DataError(f"{name}: must hold one object, not {type(found).__name__}.")
    return found


def _text(choice: Mapping[str, Any], field: str, default: str, name: str) -> str:
    value = choice.get(field, default)
    if not isinstance(value, str):
        raise DataError(f"{name}: {field!r} is a text, not {value!r}.")
    return value


def _keys(riddle: Mapping[str, Any], field: str, places: Mapping[str, int], name: str) -> tuple[int, ...]:
    keys = riddle.get(field)
    if not isinstance(keys, list) or not keys or not all(isinstance(key, str) for key in keys):
        raise DataError(f"{name}: {field!r} is a list of keys of images, not {keys!r}.")
    if len(set(keys)) < len(keys):
        raise DataError(f"{name}: {field!r} names an image twice.")
    missing = [key for key in keys if key not in places]
    if missing:
        raise DataError(f"{name}: {field!r} names the image {missing[0]!r}, which is in no shard.")
    return tuple(places[key] for key in keys)
