"""Webdataset shards as numbered samples: read by offset, from files of this machine or from a cache of remote ones.

The index holds a few numbers per sample and the keys in one piece, not objects: millions fit, and forked workers share
them, because nothing in it has a reference count that reading would change.
What this room leaves out: where indexes come from (`indexing`), order, decoding.
"""

from __future__ import annotations

import errno
import hashlib
import logging
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clip_core.errors import DataError, ImageError
from clip_hub.retrying import Broken, retrying
from clip_train.data.addresses import expand_parts, expand_shards, is_remote
from clip_train.data.ahead import Ahead
from clip_train.data.captions import json_caption
from clip_train.data.fetching import ShardCache
from clip_train.data.indexing import Indexed, Indexer
from clip_train.data.rows import Selection
from clip_train.data.scan import UNDECODED
from clip_train.data.source import Progress
from clip_train.data.table import Identity

__all__ = ["ShardSource", "expand_shards"]

_log = logging.getLogger(__name__)

# So many shards of which something is wrong are named in the log, each for damage and for what they lack.
_NAMED = 100


class ShardSource:
    """The samples of all shards that `pattern` names; see `source.Source`."""

    def __init__(
        self,
        pattern: str,
        selection: Selection | None = None,
        *,
        cache: ShardCache | None = None,
        index_folder: Path | None = None,
        max_bad_fraction: float = 0.1,
        rank: int = 0,
        ranks: int = 1,
        progress: Progress = lambda done, total: None,
    ) -> None:
        """Indexes every shard, see `indexing`, and tells `progress`. `cache` is needed where one lies elsewhere.

        Raises `DataError` for a shard that is missing, no tar, or holds no usable sample, and when more than
        `max_bad_fraction` of all samples are known to be lost to damage.
        """
        self._selection = selection or Selection()
        self._cache = cache
        self._ahead: Ahead | None = None
        parts = expand_parts(pattern)
        self.groups: tuple[str, ...] = tuple(address for part in parts for address in part)
        self.left_out: dict[str, int] = {}
        self.filtered: dict[str, dict[str, int]] = {}
        self.damaged: dict[str, dict[str, Any]] = {}
        # All keys behind each other, and where each one ends.
        self._keys, self._key_end = bytearray(), array("q")
        # One number per sample each; "q" is 64 bits.
        self._image, self._image_size = array("q"), array("q")
        self._caption, self._caption_size = array("q"), array("q")
        # One per shard.
        self._first: list[int] = []
        self._identities: list[Identity] = []
        digest = hashlib.sha256(self._selection.digest.encode())
        indexer = Indexer(self._selection, cache, index_folder)
        indexed = indexer.all(self.groups, rank=rank, ranks=ranks, progress=progress)
        for address, each in zip(self.groups, indexed, strict=True):
            self._add_shard(address, each)
            digest.update(f"\n{each.digest} {len(each.rows)}".encode())
        self._digest = digest.digest()
        self.parts: tuple[tuple[int, int], ...] = self._ranges([len(part) for part in parts])
        """First shard and number of shards of each part between "::"."""
        self._check(max_bad_fraction)

    def _ranges(self, counts: list[int]) -> tuple[tuple[int, int], ...]:
        ends = [sum(counts[: number + 1]) for number in range(len(counts))]
        return tuple((end - count, count) for end, count in zip(ends, counts, strict=True))

    def _add_shard(self, address: str, shard: Indexed) -> None:
        rows = shard.rows
        if shard.damage:
            self.damaged[address] = {"damage": list(shard.damage), "lost": shard.lost}
            lost = "an unknown number of" if shard.lost is None else shard.lost
            if len(self.damaged) <= _NAMED:
                _log.warning("%s: damaged, %s samples are lost: %s", address, lost, "; ".join(shard.damage))
        elif not len(rows) and not rows.filtered:
            held = ", ".join("." + extension for extension in sorted(shard.extensions)) or "nothing"
            raise DataError(
                f"{address}: no sample in it has both {self._selection.keys.describe()}; it holds {rows.held} samples "
                f"with {held}. See --image-key, --text-key and --json-text-key."
            )
        if rows.lacking:
            self.left_out[address] = rows.lacking
            if len(self.left_out) <= _NAMED:
                _log.warning(
                    "%s: left out %d of %d samples without an image or a caption; the first is %r",
                    address,
                    rows.lacking,
                    rows.held,
                    rows.lacks,
                )
        if rows.filtered:
            self.filtered[address] = rows.filtered
        shift = len(self._keys)
        self._first.append(len(self))
        self._identities.append(shard.identity)
        self._keys += rows.keys
        self._key_end.extend(end + shift for end in rows.key_end)
        self._image += rows.image
        self._image_size += rows.image_size
        self._caption += rows.caption
        self._caption_size += rows.caption_size

    def _check(self, max_bad_fraction: float) -> None:
        if len(self.left_out) > _NAMED:
            total = sum(self.left_out.values())
            _log.warning("left out %d samples of %d shards, which summary.json names", total, len(self.left_out))
        if len(self.damaged) > _NAMED:
            _log.warning("%d shards are damaged, which summary.json names", len(self.damaged))
        reasons: Counter[str] = Counter()
        for counts in self.filtered.values():
            reasons.update(counts)
        if reasons:
            total = len(self) + sum(reasons.values())
            _log.info("the filter keeps %d of %d samples", len(self), total)
            for reason, count in reasons.most_common():
                _log.info("filtered %d: not %s", count, reason)
        if not len(self):
            raise DataError(
                f"No sample of {len(self.groups)} shard(s) is left to train on."
                + (f" The filter takes {sum(reasons.values())}: {reasons.most_common(1)[0][0]}." if reasons else "")
            )
        lost = sum(each["lost"] or 0 for each in self.damaged.values())
        if lost > max_bad_fraction * (len(self) + lost):
            worst = max(self.damaged, key=lambda address: self.damaged[address]["lost"] or 0)
            raise DataError(
                f"{lost} of {len(self) + lost} samples are lost in {len(self.damaged)} damaged shard(s), more than "
                f"--max-bad-fraction {max_bad_fraction:g} allows; the worst is {worst}: "
                f"{'; '.join(self.damaged[worst]['damage'])}. Restore the shards, or allow more."
            )

    def __len__(self) -> int:
        return len(self._key_end)

    @property
    def fingerprint(self) -> str:
        """Of what all shards hold and what of it is trained on; the same wherever they lie."""
        return self._digest.hex()

    @property
    def sizes(self) -> list[int]:
        """Samples of each shard."""
        ends = [*self._first[1:], len(self)]
        return [end - first for first, end in zip(self._first, ends, strict=True)]

    @property
    def is_remote(self) -> bool:
        """Whether shards have to be fetched, so that the order should stay within a few at a time."""
        return any(map(is_remote, self.groups))

    @property
    def largest(self) -> int:
        """Bytes of the largest shard."""
        return max(identity.size for identity in self._identities)

    def read(self, index: int, draw: int = 0) -> tuple[bytes, bytes]:
        """The encoded image and the caption of sample `index`; `draw` decides between several captions.

        Raises `ImageError` when its bytes are not in the shard any more, `DataError` when the shard cannot be read.
        """
        if self._image_size[index] < 0:
            raise ImageError(f"{self.label(index)}: its bytes are lost, the shard is damaged.")
        places = (
            (self._image[index], self._image_size[index]),
            (self._caption[index], self._caption_size[index]),
        )
        number = self.group(index)
        try:
            image, caption = retrying(lambda: self._read_places(number, places), self.groups[number])
        except Broken as error:
            raise DataError(f"{self.groups[number]}: cannot be read ({error}).") from error
        for data, (_, size) in zip((image, caption), places, strict=True):
            if len(data) < size:
                raise ImageError(
                    f"{self.groups[number]}: short read: {self.label(index)} has {len(data)} bytes instead of {size}. "
                    "The shard was cut after it was indexed."
                )
        keys = self._selection.keys
        return image, json_caption(caption, keys, draw) if keys.json_text else caption

    def _read_places(self, number: int, places: tuple[tuple[int, int], ...]) -> list[bytes]:
        path = self.path(number)
        try:
            with open(path, "rb", buffering=0) as file:
                found = []
                for offset, size in places:
                    file.seek(offset)
                    found.append(file.read(size))
                return found
        except FileNotFoundError as error:
            if self._cache is not None and is_remote(self.groups[number]):  # it had to make room for another
                raise Broken("it was removed from the cache", after=0.0) from error
            raise DataError(f"{path}: no such file any more.") from error
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.EISDIR):
                raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
            raise Broken(error.strerror or str(error)) from error

    def path(self, number: int) -> str:
        """Where shard `number` lies on this machine; fetched unless it is here."""
        address = self.groups[number]
        if not is_remote(address):
            return address
        assert self._cache is not None
        return str(self._cache.get(address, self._identities[number]))

    def fetch_soon(self, samples: Sequence[int]) -> None:
        """Begin to bring the shards that hold `samples`, in a thread of this process; reading waits for them."""
        if self._ahead is None or not self._ahead.is_of_this_process:
            self._ahead = Ahead(self.path)
        for number in dict.fromkeys(map(self.group, samples)):
            if is_remote(self.groups[number]):
                self._ahead.want(number)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ahead": None}

    def label(self, index: int) -> str:
        """Shard and key, "data/00000.tar:s0000012"."""
        start = self._key_end[index - 1] if index else 0
        key = self._keys[start : self._key_end[index]].decode("utf-8", UNDECODED)
        return f"{self.groups[self.group(index)]}:{key}"

    def group(self, index: int) -> int:
        """Number of the shard that holds sample `index`."""
        return bisect_right(self._first, index) - 1

    def facts(self) -> dict[str, Any]:
        """What indexing found, for the summary of a run."""
        return {
            "data_fingerprint": self.fingerprint,
            "left_out_by_shard": dict(self.left_out),
            "filtered_by_shard": dict(self.filtered),
            "damaged_shards": dict(self.damaged),
        }
