"""Which images there are, in an order that does not depend on the machine: sorted by name.

Folders are searched to any depth for files whose name ends like an image's; tar files (not compressed) for members of
that kind. Nothing is decoded and nothing is unpacked: an image is a place in a file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from clip_core.errors import ConfigError, DataError
from clip_core.images import FORMATS

__all__ = ["ImageFile", "find_images", "listing_sha256"]

_log = logging.getLogger(__name__)

_BLOCK = 512  # bytes, of every tar file


@dataclasses.dataclass(frozen=True, slots=True)
class ImageFile:
    """Where the bytes of one image lie."""

    name: str
    """The path below the folder, or "shard.tar:member"; a tar file may have a member twice."""
    path: str
    offset: int
    size: int

    def read(self) -> bytes:
        """The encoded image; `OSError` as `open` and `read` raise it."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def find_images(sources: Sequence[str | os.PathLike[str]]) -> list[ImageFile]:
    """The images of all `sources`, sorted by name.

    Names of folders' images begin with the folder's own name where there are several sources. Files and folders whose
    name begins with a dot are left out, and so are links to folders.

    Raises:
        ConfigError: `sources` is one path and no list, or a source does not exist, is neither a folder nor a tar file,
            or is called as another one is.
        DataError: a tar file is compressed or damaged, or there is no image at all.
    """
    if isinstance(sources, (str, os.PathLike)):
        # The letters of a path are paths as well: "/" would be searched from the root on.
        raise ConfigError(
            f"The sources are {os.fspath(sources)!r}; allowed: a list of paths, [{os.fspath(sources)!r}]."
        )
    endings = _endings()
    found: list[ImageFile] = []
    labels: set[str] = set()
    for source in map(Path, sources):
        label = source.resolve().name
        if label in labels:
            raise ConfigError(f"Two sources are called {label}; rename one, or embed them one after the other.")
        labels.add(label)
        if source.is_dir():
            found += _in_folder(source, f"{label}/" if len(sources) > 1 else "", endings)
        elif source.is_file() and source.suffix == ".tar":
            found += _in_tar(source, f"{label}:", endings)
        else:
            what = "is neither a folder nor a file that ends in .tar" if source.exists() else "does not exist"
            raise ConfigError(f"{source} {what}; give a folder of images or tar files.")
    if not found:
        raise DataError(_none_found(sources))
    found.sort(key=lambda image: image.name)
    return found


def listing_sha256(images: Sequence[ImageFile]) -> str:
    """A hash of the names and sizes of `images`, in their order."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(f"{image.size} {image.name}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _endings() -> frozenset[str]:
    import PIL.Image

    return frozenset(end for end, form in PIL.Image.registered_extensions().items() if form in FORMATS)


def _in_folder(folder: Path, prefix: str, endings: frozenset[str]) -> Iterator[ImageFile]:
    def fail(error: OSError) -> None:
        raise DataError(f"Cannot read the folder {error.filename}: {error.strerror}.") from error

    for parent, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for file in files:
            if not file.startswith(".") and os.path.splitext(file)[1].lower() in endings:
                path = os.path.join(parent, file)
                regular = os.path.isfile(path)
                # A link to nothing shows when it is read; a pipe would be waited for.
                if regular or not os.path.exists(path):
                    size = os.stat(path).st_size if regular else 0
                    yield ImageFile(prefix + Path(path).relative_to(folder).as_posix(), path, 0, size)


def _in_tar(path: Path, prefix: str, endings: frozenset[str]) -> Iterator[ImageFile]:
    try:
        with tarfile.open(path, "r:", errors="surrogateescape") as archive:
            for member in archive:
                plain = member.isreg() and not member.issparse()
                if plain and os.path.splitext(member.name)[1].lower() in endings:
                    yield ImageFile(prefix + member.name, str(path), member.offset_data, member.size)
        # A file that was cut within a header, or between two members, ends without a word from tarfile.
        with open(path, "rb") as file:
            file.seek(-_BLOCK, os.SEEK_END)
            if file.tell() % _BLOCK:
                raise DataError(f"{path} is cut short: its size is no multiple of {_BLOCK} bytes. Copy it again.")
            if any(file.read()):
                _log.warning("%s has no mark at its end; images may be missing", path)
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"Cannot read {path}: {error}. Compressed tar files have to be decompressed first.") from error


def _none_found(sources: Sequence[str | os.PathLike[str]]) -> str:
    shards = [path for source in sources if Path(source).is_dir() for path in sorted(Path(source).glob("*.tar"))]
    text = f"There is no image in {', '.join(str(source) for source in sources)}."
    if shards:
        text += f" There are tar files, which have to be named themselves: {shards[0].parent}/*.tar."
    return text
