"""A csv file of image paths and captions as numbered samples. What this room leaves out: order and decoding."""

from __future__ import annotations

import csv
import hashlib
import logging
from pathlib import Path
from typing import Any

from clip_core.errors import DataError, ImageError, nearest

__all__ = ["CsvSource"]

_log = logging.getLogger(__name__)


class CsvSource:
    """The rows of one csv file with a header; see `source.Source`. Paths are relative to the file, or absolute."""

    def __init__(self, path: str, *, separator: str, image_column: str, caption_column: str) -> None:
        """Reads all rows. Raises `DataError` naming the file for one that is missing, no text, or lacks a column."""
        self.groups: tuple[str, ...] = (path,)
        self.left_out: dict[str, int] = {}
        self._folder = Path(path).parent
        self._images: list[str] = []
        self._captions: list[str] = []
        try:
            # Excel begins a file in UTF-8 with a mark that belongs to no column; "-sig" reads with and without it.
            with open(path, encoding="utf-8-sig", newline="") as file:
                rows = csv.DictReader(file, delimiter=separator)
                columns = list(rows.fieldnames or [])
                for column, flag in ((image_column, "--csv-img-key"), (caption_column, "--csv-caption-key")):
                    if column not in columns:
                        raise DataError(_describe_missing(path, column, columns, flag, separator))
                for row in rows:
                    if row[image_column] and row[caption_column] is not None:
                        self._images.append(row[image_column])
                        self._captions.append(row[caption_column])
                    else:
                        self.left_out[path] = self.left_out.get(path, 0) + 1
        except FileNotFoundError:
            raise DataError(f"{path}: no such file.") from None
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: cannot be read as a csv file in UTF-8 ({error}).") from error
        if not self._images:
            raise DataError(f"{path}: holds no row with an image and a caption.")
        if self.left_out:
            _log.warning("%s: left out %d rows without an image or a caption", path, self.left_out[path])

    def __len__(self) -> int:
        return len(self._images)

    @property
    def fingerprint(self) -> str:
        """Of all rows: paths and captions, not the images themselves."""
        digest = hashlib.sha256()
        for image, caption in zip(self._images, self._captions, strict=True):
            digest.update(repr((image, caption)).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def read(self, index: int, draw: int = 0) -> tuple[bytes, bytes]:
        """The encoded image and the caption of row `index`; `ImageError` when there is no such image file."""
        path = self._folder / self._images[index]
        try:
            image = path.read_bytes()
        except (FileNotFoundError, IsADirectoryError) as error:
            raise ImageError(f"{path}: {error.strerror}.") from error
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
        return image, self._captions[index].encode("utf-8")

    def label(self, index: int) -> str:
        """File and image, "pairs.csv:images/0001.jpg"."""
        return f"{self.groups[0]}:{self._images[index]}"

    def group(self, index: int) -> int:
        """Always 0, the one file."""
        return 0

    def facts(self) -> dict[str, Any]:
        """What reading found, for the summary of a run."""
        return {"data_fingerprint": self.fingerprint, "left_out_by_shard": dict(self.left_out)}


def _describe_missing(path: str, column: str, columns: list[str], flag: str, separator: str) -> str:
    close = nearest(column, columns)
    hint = f"Did you mean {', '.join(close)}?" if close else f"It has {', '.join(map(repr, columns)) or 'none'}."
    return f"{path}: has no column {column!r} when split at {separator!r}. {hint} See {flag} and --csv-separator."
