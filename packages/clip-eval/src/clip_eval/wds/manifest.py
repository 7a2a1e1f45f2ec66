"""`SPLIT/manifest.json`: how many samples and bytes each shard has, and their hash, so that a loss does not go unseen.

    {"schema": 1, "samples": 10000, "classes": 10, "shards": [{"samples": 10000, "bytes": 4096, "sha256": "..."}, ...]}

The entries of `shards` stand in the order of the shards, 0.tar first. It is ours: other readers of the layout skip it.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from clip_core.errors import DataError
from clip_eval.wds.tars import Sample
from clip_hub.hashes import sha256_of

__all__ = ["MANIFEST", "Manifest", "ShardFacts", "parse_manifest", "read_manifest", "shard_sha256"]

MANIFEST = "manifest.json"
_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class ShardFacts:
    """What one shard must be."""

    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a split must hold."""

    samples: int
    shards: tuple[ShardFacts, ...]
    classes: int | None = None
    """Number of class names; None where there are none."""

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {"schema": _SCHEMA, **asdict(self)}

    def check(self, folder: Path, paths: Sequence[Path], samples: Sequence[Sample], *, hashes: bool = True) -> None:
        """Raises `DataError`, naming what is there and what should be, where the split `folder` is another one."""
        if len(paths) != len(self.shards):
            raise DataError(f"{folder}: holds {len(paths)} shard(s), its {MANIFEST} names {len(self.shards)}. {_CURE}")
        counts = Counter(sample.shard for sample in samples)
        for path, facts in zip(paths, self.shards, strict=True):
            size = path.stat().st_size
            if size != facts.bytes:
                raise DataError(f"{path}: has {size} bytes, {MANIFEST} says {facts.bytes}. {_CURE}")
            if hashes and shard_sha256(path) != facts.sha256:
                raise DataError(f"{path}: its bytes are not those that {MANIFEST} names (the sha256 differs). {_CURE}")
            if counts[str(path)] != facts.samples:
                raise DataError(f"{path}: holds {counts[str(path)]} samples, {MANIFEST} says {facts.samples}. {_CURE}")
        if len(samples) != self.samples:
            raise DataError(f"{folder}: holds {len(samples)} samples, {MANIFEST} says {self.samples}. {_CURE}")


_CURE = "Fetch or build the data set again."


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a split; None where there is none."""
    path = folder / MANIFEST
    try:
        return parse_manifest(path.read_bytes(), str(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def parse_manifest(data: bytes, source: str) -> Manifest:
    """The manifest in these bytes; `DataError`, naming `source`, where they hold none."""
    try:
        found = json.loads(data)
        schema = found["schema"]
        shards = tuple(
            ShardFacts(int(entry["samples"]), int(entry["bytes"]), str(entry["sha256"])) for entry in found["shards"]
        )
        classes = found.get("classes")
        manifest = Manifest(
            samples=int(found["samples"]), shards=shards, classes=None if classes is None else int(classes)
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{source}: not a manifest of a split ({error!r}). {_CURE}") from error
    if schema != _SCHEMA:
        raise DataError(f"{source}: a manifest of schema {schema!r}; this version reads {_SCHEMA}.")
    return manifest


def shard_sha256(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file, 64 digits; read again only if the file has changed since this process read it."""
    found = os.stat(path)
    return _sha256(os.path.realpath(path), found.st_size, found.st_mtime_ns, found.st_ino)


@lru_cache(maxsize=4096)
def _sha256(path: str, size: int, mtime: int, inode: int) -> str:
    return sha256_of(Path(path))
