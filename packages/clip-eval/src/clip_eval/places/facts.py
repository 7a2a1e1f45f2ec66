"""Which files one split of a data set has, wherever it lies, and what they would cost; see `clip_eval.wds.opening`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from clip_core.errors import StorageError
from clip_eval.wds.manifest import MANIFEST, read_manifest

__all__ = ["DatasetFacts", "check_room", "count_file", "read_samples", "shard_names", "small_files"]

_OF_THE_SET = ("classnames.txt", "zeroshot_classification_templates.txt", "dataset_type.txt", "about.json")
_OF_THE_SPLIT = (MANIFEST, "associations.jsonl")


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """What would be read of a data set, before any shard is fetched."""

    address: str
    """As it was given, with its place below `root`."""
    place: str
    """"folder", "hub" or "url"."""
    revision: str
    """The commit of a repository; "" elsewhere."""
    folder: Path | None
    """Where it lies on this machine; None while a shard is missing here."""
    shards: int
    files: int
    """Shards and small files."""
    bytes: int
    bytes_cached: int
    """How many of them need not be fetched."""
    samples: int | None
    """From the manifest; None where there is none."""


def small_files(split: str) -> list[str]:
    """Files that a data set may have or not have."""
    return [*_OF_THE_SET, *(f"{split}/{name}" for name in _OF_THE_SPLIT)]


def count_file(split: str) -> str:
    """The file that says how many shards there are; every split has it."""
    return f"{split}/nshards.txt"


def shard_names(split: str, count: int) -> list[str]:
    """The shards in their order."""
    return [f"{split}/{number}.tar" for number in range(count)]


def read_samples(split: Path) -> int | None:
    """How many samples the manifest of a split names; None without one."""
    manifest = read_manifest(split)
    return None if manifest is None else manifest.samples


def check_room(needed: int, folder: Path, what: str) -> None:
    """Raises `StorageError` where the disk of `folder` has no room for so many bytes: before an hour, not after."""
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise StorageError(
            f"{what} needs {needed / 1e9:.2f} GB more, and {place} has {free / 1e9:.2f} GB left. Free some space, or "
            "pass another cache_dir."
        )
