"""Webdataset shards: an index of the samples in a tar, and the bytes of their members.

A shard is indexed by its tar headers only: no image is decoded and no payload is read, so a later reader can seek
straight to the bytes it wants and can resume, shuffle or split without streaming. What is not here: what the members
mean (`annotations`), writing.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike

from clip_core.errors import DataError

__all__ = [
    "IMAGE_EXTENSIONS",
    "Sample",
    "image_extension",
    "image_name",
    "index_shard",
    "read_each",
    "read_image_bytes",
    "read_member",
]

IMAGE_EXTENSIONS: tuple[str, ...] = ("jpg", "png", "jpeg", "webp")

# webdataset's rule: the key is the path up to the first dot of the basename, the extension is everything after it.
# A basename that begins with a dot (".DS_Store") has no key and belongs to no sample.
_KEY_AND_EXTENSION = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)
# Its rule for data about the shard instead of a sample: "__meta__", "__meta__/a.txt", not "__a.txt".
_META = re.compile(r"__[^/]*__(?:$|/)")
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Sample:
    """One webdataset sample: where its members lie. Nothing is decoded and nothing is read."""

    shard: str
    """Path of the tar."""
    key: str
    """Name that the members share, for example `s0000012`; may hold folders."""
    members: Mapping[str, tuple[int, int]] = field(hash=False)
    """Extension in lower case ("png", "txt", "cls") -> (offset, size) in bytes of the data inside the tar."""


def index_shard(path: str | PathLike[str]) -> list[Sample]:
    """The samples of one uncompressed tar, in the order in which their first members stand in it.

    Only headers are read. Members of one sample need not be neighbours. Raises `DataError`, naming the file and the
    reason, for a file that is missing, is no tar, is cut short or damaged, or holds a member of a sample twice.
    """
    shard = str(path)
    found: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            while (member := tar.next()) is not None:
                # tarfile keeps every header that it has seen; a shard of 10,000 samples does not need them.
                tar.members.clear()  # type: ignore[attr-defined]
                if not member.isreg() or member.issparse():
                    continue
                match = _KEY_AND_EXTENSION.fullmatch(member.name)
                if match is None or _META.match(member.name):
                    continue
                key, extension = match[1], match[2].lower()
                members = found.setdefault(key, {})
                if extension in members:
                    raise DataError(
                        f"{shard}: the sample {key!r} holds two members .{extension}. Write the shard again."
                    )
                members[extension] = (member.offset_data, member.size)
            end = tar.offset
        _check_end_marker(shard, end)
    except FileNotFoundError:
        raise DataError(f"{shard}: no such file. Check the path and the number of shards.") from None
    except (tarfile.TarError, EOFError) as error:
        raise DataError(
            f"{shard}: not a readable tar ({error}). It is cut short, compressed, or no tar at all."
        ) from error
    except OSError as error:
        raise DataError(f"{shard}: cannot be read ({error.strerror or error}).") from error
    return [Sample(shard, key, members) for key, members in found.items()]


def _check_end_marker(shard: str, offset: int) -> None:
    """A tar ends with a block of zeros; tarfile itself stops silently at a missing or damaged header."""
    with open(shard, "rb") as file:
        file.seek(offset)
        block = file.read(_BLOCK)
    if len(block) < _BLOCK:
        raise DataError(f"{shard}: cut short: the tar ends at byte {offset + len(block)} without its end marker.")
    if any(block):
        raise DataError(f"{shard}: damaged tar: the header at byte {offset} is not one.")


def read_member(sample: Sample, extension: str) -> bytes:
    """The bytes of one member. Raises `DataError` when the sample lacks it or the shard has become shorter."""
    return next(read_each([sample], extension))


def read_each(samples: Sequence[Sample], extension: str) -> Iterator[bytes]:
    """The bytes of this member of each sample; a shard stays open while its samples follow each other.

    Raises `DataError` as `read_member`, when it comes to the sample.
    """
    shard, file = "", None
    try:
        for sample in samples:
            try:
                offset, size = sample.members[extension]
            except KeyError:
                raise DataError(
                    f"{sample.shard}: the sample {sample.key!r} has no .{extension}; it holds {_held(sample)}."
                ) from None
            try:
                if file is None or sample.shard != shard:
                    if file is not None:
                        file.close()
                    shard, file = sample.shard, open(sample.shard, "rb")  # noqa: SIM115  # closed below
                file.seek(offset)
                data = file.read(size)
            except OSError as error:
                raise DataError(f"{sample.shard}: cannot be read ({error.strerror or error}).") from error
            if len(data) != size:
                raise DataError(
                    f"{sample.shard}: short read: {sample.key}.{extension} has {len(data)} bytes instead of {size}. "
                    "The shard was changed or cut after it was indexed."
                )
            yield data
    finally:
        if file is not None:
            file.close()


def image_extension(sample: Sample) -> str:
    """The extension of the sample's image, the first of `IMAGE_EXTENSIONS` that it has; `DataError` when none."""
    for extension in IMAGE_EXTENSIONS:
        if extension in sample.members:
            return extension
    raise DataError(
        f"{sample.shard}: the sample {sample.key!r} has no image; it holds {_held(sample)}, "
        f"and an image is one of .{', .'.join(IMAGE_EXTENSIONS)}."
    )


def image_name(sample: Sample) -> str:
    """A name for messages, `shard.tar:key.png`."""
    return f"{sample.shard}:{sample.key}.{image_extension(sample)}"


def read_image_bytes(sample: Sample) -> tuple[bytes, str]:
    """The still encoded image and its name for messages."""
    return read_member(sample, image_extension(sample)), image_name(sample)


def _held(sample: Sample) -> str:
    return ", ".join(f".{name}" for name in sample.members) or "nothing"
