"""A data set of the `datasets` library as numbered samples: a name of the Hub, or a folder that it or its user saved.

Needs the extra `huggingface`. Images are handed on as they are stored, not decoded. What this room leaves out: order.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

from clip_core.errors import ConfigError, DataError, ImageError, nearest

__all__ = ["HuggingFaceSource"]


class HuggingFaceSource:
    """The rows of one split; see `source.Source`."""

    def __init__(self, name: str, *, split: str, image_column: str, caption_column: str) -> None:
        """`name`: "org/name", "org/name:configuration", or a folder (of `save_to_disk`, or of data files).

        Raises `ConfigError` without `datasets`, `DataError` when there is no such data set, split or column.
        """
        self.groups: tuple[str, ...] = (f"{name}:{split}",)
        self.left_out: dict[str, int] = {}
        self._rows: Any = _load(name, split)
        columns = list(self._rows.column_names)
        for column, flag in ((image_column, "--hf-image-column"), (caption_column, "--hf-caption-column")):
            if column not in columns:
                close = nearest(column, columns)
                hint = f"Did you mean {', '.join(close)}?" if close else f"It has {', '.join(columns)}."
                raise DataError(f"{name}: has no column {column!r}. {hint} See {flag}.")
        import datasets

        if isinstance(self._rows.features[image_column], datasets.Image):
            self._rows = self._rows.cast_column(image_column, datasets.Image(decode=False))
        self._rows = self._rows.select_columns([image_column, caption_column])
        self._image_column, self._caption_column = image_column, caption_column
        facts = f"{self._rows._fingerprint} {self._rows.num_rows} {image_column} {caption_column}"
        self._digest = hashlib.sha256(facts.encode()).digest()
        if not len(self):
            raise DataError(f"{name}: the split {split!r} holds no row.")

    @property
    def fingerprint(self) -> str:
        """Of what `datasets` itself takes for the identity of the data."""
        return self._digest.hex()

    def __len__(self) -> int:
        return int(self._rows.num_rows)

    def read(self, index: int, draw: int = 0) -> tuple[bytes, bytes]:
        """The image as it is stored and its caption, one of several by `draw`; `ImageError` without an image."""
        row = self._rows[index]
        image, caption = row[self._image_column], row[self._caption_column]
        if isinstance(caption, list):
            texts = [text for text in caption if isinstance(text, str) and text.strip()]
            caption = texts[draw % len(texts)] if texts else ""
        return _image_bytes(image, self.label(index)), (caption or "").encode("utf-8", "replace")

    def label(self, index: int) -> str:
        """Name, split and row, "org/name:train:17"."""
        return f"{self.groups[0]}:{index}"

    def group(self, index: int) -> int:
        """Always 0."""
        return 0

    def facts(self) -> dict[str, Any]:
        """For the summary of a run."""
        return {"data_fingerprint": self.fingerprint, "left_out_by_shard": {}}


def _load(name: str, split: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ConfigError("--dataset-type huggingface needs `pip install clip-train[huggingface]`.") from error
    try:
        folder = Path(name)
        if (folder / "dataset_info.json").is_file() or (folder / "dataset_dict.json").is_file():
            found = datasets.load_from_disk(name)
            return found[split] if isinstance(found, datasets.DatasetDict) else found
        where, _, configuration = name.partition(":") if not folder.exists() else (name, "", "")
        return datasets.load_dataset(where, configuration or None, split=split)
    except KeyError:
        raise DataError(f"{name}: has no split {split!r}; it has {', '.join(found)}. See --hf-split.") from None
    except Exception as error:
        raise DataError(f"{name}: cannot be loaded by datasets ({type(error).__name__}: {error}).") from error


def _image_bytes(image: Any, label: str) -> bytes:
    if isinstance(image, dict):
        if image.get("bytes"):
            return bytes(image["bytes"])
        image = image.get("path")
    if isinstance(image, bytes):
        return image
    if isinstance(image, str):
        try:
            return Path(image).read_bytes()
        except OSError as error:
            raise ImageError(f"{label}: {image}: {error.strerror or error}.") from error
    if hasattr(image, "save"):
        data = io.BytesIO()
        image.save(data, format="PNG")
        return data.getvalue()
    raise ImageError(f"{label}: there is no image.")
