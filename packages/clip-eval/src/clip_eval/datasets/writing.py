"""How the sets that come with the package are written: whole folders or none, and the same bytes each time."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from os import PathLike
from pathlib import Path
from typing import Any

from PIL import Image

from clip_core.errors import DataError

__all__ = ["Members", "new_folder", "png", "write_about", "write_lines", "write_shards", "write_split"]

Members = Mapping[str, object]
"""What webdataset's writers take: `__key__`, and bytes by extension."""


@contextmanager
def new_folder(folder: str | PathLike[str]) -> Iterator[Path]:
    """A folder to write into, which takes the place of `folder` at the end: a kill leaves no half data set.

    Raises `DataError` when `folder` already holds something or cannot be written.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f"{target}: already exists and is not an empty folder. Choose another one, or remove it.")
    partial = target.with_name(target.name + ".partial")
    try:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        yield partial
        if target.exists():
            target.rmdir()
        partial.rename(target)
    except OSError as error:
        raise DataError(f"{target}: the data set cannot be written ({error.strerror or error}).") from error


def png(image: Image.Image) -> bytes:
    """The picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """One text a line, each ended by a line feed."""
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())


def write_about(folder: Path, about: Mapping[str, Any]) -> None:
    """Facts that an evaluation record carries along; an addition to the `wds_*` layout, which other readers skip."""
    text = json.dumps(about, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "about.json").write_text(text + "\n", encoding="utf-8")


def write_split(folder: Path, members: Iterable[Members], split: str = "test") -> None:
    """Writes `folder`/split: numbered shards and how many there are."""
    base = folder / split
    base.mkdir(parents=True)
    shards = write_shards(base, "%d.tar", members, 10_000)
    (base / "nshards.txt").write_bytes(f"{shards}\n".encode())


def write_shards(folder: Path, pattern: str, members: Iterable[Members], maxcount: int) -> int:
    """Writes shards whose bytes depend on the members only; returns their number."""
    import webdataset

    shards = 0
    for _, group in groupby(enumerate(members), key=lambda numbered: numbered[0] // maxcount):
        # webdataset takes a path for a URL, and "pipe:" runs a shell: it gets the open file instead.
        with (
            (folder / (pattern % shards)).open("wb") as file,
            webdataset.TarWriter(file, user="clip", group="clip", mtime=0, encoder=False) as writer,
        ):
            for _, member in group:
                writer.write(member)
        shards += 1
    return shards
