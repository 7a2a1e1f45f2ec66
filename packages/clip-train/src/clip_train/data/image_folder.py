"""A folder of images as numbered samples: captions from text files beside them, or from the names of their folders.

photos/dog.jpg with photos/dog.txt          the caption is the text
photos/golden retriever/1.jpg               the caption is "a photo of a golden retriever.", by a template

What this room leaves out: order and decoding.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from pathlib import Path
from typing import Any

from clip_core.errors import DataError, ImageError

__all__ = ["ImageFolderSource"]

_IMAGES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".avif"))
_CAPTION = ".txt"


class ImageFolderSource:
    """All images below a folder; see `source.Source`."""

    def __init__(self, folder: str, *, template: str) -> None:
        """Lists the files; `template` has `{}` where the name of an image's folder goes.

        An image with a text file of its name has that as its caption. Raises `DataError` when there is no image with a
        caption.
        """
        root = Path(folder)
        if not root.is_dir():
            raise DataError(f"{folder}: no such folder.")
        self._root, self._template = root, template
        self.left_out: dict[str, int] = {}
        names: dict[str, int] = {}
        self._paths, self._path_end = bytearray(), array("q")
        self._group = array("q")
        digest = hashlib.sha256()
        for place, folders, files in os.walk(root):
            folders.sort()
            inside = Path(place).relative_to(root)
            held = set(files)
            for name in sorted(files):
                stem, extension = os.path.splitext(name)
                if extension.lower() not in _IMAGES or name.startswith("."):
                    continue
                group = inside.parts[0] if inside.parts else "."
                if stem + _CAPTION not in held and group == ".":
                    self.left_out[str(root)] = self.left_out.get(str(root), 0) + 1
                    continue
                path = (inside / name).as_posix()
                self._paths += os.fsencode(path)
                self._path_end.append(len(self._paths))
                self._group.append(names.setdefault(group, len(names)))
                size = (Path(place) / name).stat().st_size
                digest.update(f"{path}\n{size} {stem + _CAPTION in held}\n".encode("utf-8", "surrogateescape"))
        self.groups: tuple[str, ...] = tuple(str(root / name) for name in names)
        self._digest = digest.digest()
        if not len(self):
            raise DataError(
                f"{folder}: holds no image with a caption. A caption is a .txt file of the image's name, or the name "
                "of the sub-folder that the image is in."
            )

    @property
    def fingerprint(self) -> str:
        """Of names and sizes of all images."""
        return self._digest.hex()

    def __len__(self) -> int:
        return len(self._path_end)

    def read(self, index: int, draw: int = 0) -> tuple[bytes, bytes]:
        """The encoded image and its caption; `ImageError` when the file is gone."""
        path = self._path(index)
        try:
            image = path.read_bytes()
            beside = path.with_suffix(_CAPTION)
            if beside.is_file():
                return image, beside.read_bytes()
        except FileNotFoundError as error:
            raise ImageError(f"{path}: {error.strerror}.") from error
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
        name = Path(self.groups[self._group[index]]).name.replace("_", " ")
        return image, self._template.replace("{}", name).encode("utf-8", "replace")

    def label(self, index: int) -> str:
        """The path of the image."""
        return str(self._path(index))

    def group(self, index: int) -> int:
        """Number of the sub-folder that holds the image."""
        return self._group[index]

    def facts(self) -> dict[str, Any]:
        """What listing found, for the summary of a run."""
        return {"data_fingerprint": self.fingerprint, "left_out_by_shard": dict(self.left_out)}

    def _path(self, index: int) -> Path:
        start = self._path_end[index - 1] if index else 0
        return self._root / os.fsdecode(bytes(self._paths[start : self._path_end[index]]))
