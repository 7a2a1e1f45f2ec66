"""Webdataset shards as numbered samples: patterns, the index of every tar, reads by offset.

The index holds a few numbers per sample and the keys in one piece, not objects: millions fit, and forked workers share
them, because nothing in it has a reference count that reading would change.
What this room leaves out: remote shards and `pipe:` commands, shuffling, decoding.
"""

from __future__ import annotations

import glob
import logging
from array import array
from collections.abc import Sequence
from pathlib import Path

from braceexpand import braceexpand

from clip_core.errors import DataError
from clip_eval.wds import IMAGE_EXTENSIONS, Sample, index_shard, read_member

__all__ = ["ShardSource", "expand_shards"]

_log = logging.getLogger(__name__)
_CAPTION = "txt"
# tarfile's way with names that are not UTF-8.
_UNDECODED = "surrogateescape"


def expand_shards(pattern: str) -> list[str]:
    """The paths that `pattern` names: braces ("{00000..00041}"), "*" for files that exist, "::" between lists.

    Raises `DataError` for a pattern that cannot be read or matches nothing, a path named twice, and a URL.
    """
    paths: list[str] = []
    for part in pattern.split("::"):
        if part.startswith("pipe:") or "://" in part:
            raise DataError(f"{part}: clip-train reads local files only so far. Copy the shards to a disk.")
        try:
            # A backslash separates folders on Windows, so it escapes nothing.
            expanded = list(braceexpand(part.strip(), escape=False))
        except ValueError as error:
            raise DataError(f"{part!r} is not a pattern of shards: {error}.") from error
        for path in filter(None, expanded):
            found = sorted(glob.glob(path)) if glob.has_magic(path) and not Path(path).exists() else [path]
            if not found:
                raise DataError(f"{path}: no file matches this pattern. Check the path.")
            paths.extend(found)
    if not paths:
        raise DataError(f"The pattern {pattern!r} names no shard.")
    twice = {path for path in paths if paths.count(path) > 1} if len(set(paths)) < len(paths) else set()
    if twice:
        raise DataError(f"{min(twice)}: named twice by {pattern!r}; every shard is read once per pass.")
    return paths


class ShardSource:
    """The samples of all shards that `pattern` names; see `source.Source`."""

    def __init__(self, pattern: str) -> None:
        """Indexes every shard. Raises `DataError` for one that is missing, damaged, or holds no usable sample."""
        self.groups: tuple[str, ...] = tuple(expand_shards(pattern))
        self.left_out: dict[str, int] = {}
        # All keys behind each other, and where each one ends.
        self._keys, self._key_end = bytearray(), array("q")
        # One number per sample each; "q" is 64 bits. The kind is a position in IMAGE_EXTENSIONS.
        self._shard, self._kind = array("q"), array("B")
        self._image, self._image_size = array("q"), array("q")
        self._caption, self._caption_size = array("q"), array("q")
        for number, path in enumerate(self.groups):
            self._add_shard(number, index_shard(path))

    def _add_shard(self, number: int, samples: Sequence[Sample]) -> None:
        path = self.groups[number]
        lacking: list[str] = []
        for sample in samples:
            kind = next((n for n, extension in enumerate(IMAGE_EXTENSIONS) if extension in sample.members), None)
            if kind is None or _CAPTION not in sample.members:
                lacking.append(sample.key)
                continue
            self._shard.append(number)
            self._keys += sample.key.encode("utf-8", _UNDECODED)
            self._key_end.append(len(self._keys))
            self._kind.append(kind)
            offset, size = sample.members[IMAGE_EXTENSIONS[kind]]
            self._image.append(offset)
            self._image_size.append(size)
            offset, size = sample.members[_CAPTION]
            self._caption.append(offset)
            self._caption_size.append(size)
        if len(lacking) == len(samples):
            held = sorted({extension for sample in samples[:100] for extension in sample.members})
            raise DataError(
                f"{path}: no sample in it has both an image (.{', .'.join(IMAGE_EXTENSIONS)}) and a caption "
                f"(.{_CAPTION}); it holds {len(samples)} samples with {', '.join('.' + e for e in held) or 'nothing'}."
            )
        if lacking:
            self.left_out[path] = len(lacking)
            _log.warning(
                "%s: left out %d of %d samples without an image or a caption; the first is %r",
                path,
                len(lacking),
                len(samples),
                lacking[0],
            )

    def __len__(self) -> int:
        return len(self._shard)

    def read(self, index: int) -> tuple[bytes, bytes]:
        """The encoded image and the caption of sample `index`; `DataError` when the shard has changed since."""
        extension = IMAGE_EXTENSIONS[self._kind[index]]
        sample = Sample(
            self.groups[self._shard[index]],
            self._key(index),
            {
                extension: (self._image[index], self._image_size[index]),
                _CAPTION: (self._caption[index], self._caption_size[index]),
            },
        )
        return read_member(sample, extension), read_member(sample, _CAPTION)

    def label(self, index: int) -> str:
        """Shard and key, "data/00000.tar:s0000012"."""
        return f"{self.groups[self._shard[index]]}:{self._key(index)}"

    def group(self, index: int) -> int:
        """Number of the shard that holds sample `index`."""
        return self._shard[index]

    def _key(self, index: int) -> str:
        start = self._key_end[index - 1] if index else 0
        return self._keys[start : self._key_end[index]].decode("utf-8", _UNDECODED)
