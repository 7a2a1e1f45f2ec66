"""One image with what stands beside it, as it is handed to the writer, and as the members of a shard.

The bytes of a JPEG, PNG or WebP file are kept as they are; every other picture is stored without loss.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clip_core.errors import DataError, ImageError
from clip_core.images import open_image
from clip_eval.wds import Kind

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.Image import Image

__all__ = ["Example", "ImageFormat", "picture_member", "sample_members"]

ImageFormat = Literal["webp", "png"]
"""How pictures are stored that are in no file, or in one of another kind; both without loss."""

_KEPT = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}
_LARGEST_WEBP = 16_383
"""Pixels on a side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One sample of a data set that is to be written."""

    image: bytes | str | os.PathLike[str] | Image | npt.NDArray[Any]
    """An encoded file, its path, a PIL image, or a uint8 array (height, width, 3)."""
    label: int | None = None
    """In [0, C); classification."""
    present: Sequence[int] = ()
    """Labels that the image has; multilabel."""
    captions: Sequence[str] = ()
    """Retrieval and caption choice."""
    metadata: Sequence[float] = ()
    """F numbers about the image; classification."""
    right: int = 0
    """Place of the right caption; caption choice."""
    example: str = ""
    """Name of the example that the image belongs to; caption choice."""
    category: str = ""
    """Caption choice."""


def sample_members(example: Example, kind: Kind, classes: int, form: ImageFormat) -> dict[str, bytes]:
    """Bytes by extension, in the order of the extensions.

    Raises:
        DataError: what the kind needs is missing or does not fit.
        ImageError: the image is none.
    """
    extension, data = picture_member(example.image, form)
    members = {extension: data}
    if kind == "classification":
        if example.label is None:
            raise DataError(f"{_name(example)}: has no label.")
        members["cls"] = str(int(example.label)).encode()
        if len(example.metadata):
            members["npy"] = _array(example.metadata)
    elif kind == "multilabel":
        members["npy"] = _vector(example, classes)
    elif kind in ("retrieval", "caption_choice"):
        members["txt"] = _captions(example)
    if kind == "caption_choice":
        facts = {"right": example.right, "example": example.example, "category": example.category}
        members["json"] = json.dumps({name: value for name, value in facts.items() if value != ""}).encode()
    return dict(sorted(members.items()))


def picture_member(image: object, form: ImageFormat) -> tuple[str, bytes]:
    """The extension and the bytes under which a picture is stored."""
    name = None
    if isinstance(image, (str, os.PathLike)):
        name = os.fspath(image)
        try:
            image = Path(image).read_bytes()
        except OSError as error:
            raise ImageError(f"Cannot open image {name}: {error.strerror or error}.") from error
    # Decoded in full, so that a damaged file is found here and not in every evaluation.
    picture = open_image(image, name=name)  # type: ignore[arg-type]  # it says what it does not take
    if isinstance(image, bytes) and picture.format in _KEPT:
        return _KEPT[picture.format], image
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        lossless = picture.convert("RGBA")
    elif picture.mode in ("1", "L", "I;16"):
        lossless, form = picture, "png"
    else:
        lossless = picture.convert("RGB")
    buffer = io.BytesIO()
    if form == "webp" and max(lossless.size) <= _LARGEST_WEBP:
        # exact: the colours below full transparency are part of what every reader sees after convert("RGB").
        lossless.save(buffer, "WEBP", lossless=True, exact=True)
        return "webp", buffer.getvalue()
    lossless.save(buffer, "PNG")
    return "png", buffer.getvalue()


def _captions(example: Example) -> bytes:
    """One caption a line; a line break inside one is written as backslash and n, as the layout has it."""
    if isinstance(example.captions, str) or not example.captions:
        raise DataError(f"{_name(example)}: has no list of captions.")
    lines = []
    for caption in example.captions:
        line = str(caption).replace("\r\n", "\n").replace("\r", "\n").strip("\n").replace("\n", "\\n")
        if not line.strip():
            raise DataError(f"{_name(example)}: one of its captions is blank. Take it out.")
        lines.append(line)
    return "\n".join(lines).encode()


def _vector(example: Example, classes: int) -> bytes:
    import numpy as np

    row = np.zeros(classes, dtype=np.float32)
    for label in example.present:
        if not 0 <= label < classes:
            raise DataError(f"{_name(example)}: has the label {label}, but there are {classes} classes.")
        row[label] = 1
    return _saved(row)


def _array(values: Sequence[float]) -> bytes:
    import numpy as np

    whole = all(float(value).is_integer() for value in values)
    return _saved(np.asarray(values, dtype=np.int64 if whole else np.float64))


def _saved(row: npt.NDArray[Any]) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, row, allow_pickle=False)
    return buffer.getvalue()


def _name(example: Example) -> str:
    if isinstance(example.image, (str, os.PathLike)):
        return os.fspath(example.image)
    return f"An image of example {example.example!r}" if example.example else "An image"
