"""Features kept on disk, so that each image is encoded once per model: a file for each shard and block of texts.

    <root>/images/<key of the model>/<shard's sha256>-<samples>.safetensors    features, places, left_out (metadata)
    <root>/texts/<key of the model>/<sha256 of the texts>.safetensors
    <root>/<images or texts>/<key>/key.json                                    what the key is a hash of
    <root>/shards/<sha256 of a path>.json                                      the hashes of shards, remembered

A file gets its name when it is whole and on the disk, so a run that is killed loses what it was working on and nothing
else, and processes that write the same file at once replace it with the same. A file that does not read back as it was
written counts as missing, aloud. Keys are `fingerprints`' affair; which items a file has, the encoder's.

With float16 a feature keeps about three and a half digits. The run that encodes uses what it kept, not what it had, so
that every later run gives the same numbers to the last bit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_core.errors import ConfigError, DataError, StorageError
from clip_eval.fingerprints import FeatureKey

__all__ = ["FeatureStore", "Kind", "Shard", "Stored"]

_log = logging.getLogger(__name__)

Kind = Literal["images", "texts"]
_DTYPES = {"float32": torch.float32, "float16": torch.float16}
_UNSAFE = 2_000_000_000
"""Nanoseconds: a file that changed so shortly before it was hashed may change again and keep its time of change."""
_ABANDONED = 86_400.0
"""Seconds after which an unfinished file is one that a killed run left behind."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A tar, as it was when it was hashed."""

    path: Path
    sha256: str
    state: tuple[int, int, int]
    """Size in bytes, time of change of the contents and of the file, in nanoseconds."""

    def check_unchanged(self) -> None:
        """Raises `DataError` when the file has been written to since."""
        if _state(self.path) != self.state:
            raise DataError(
                f"{self.path}: changed while it was read, so its features would be a mixture. Run again when nothing "
                "writes to it."
            )


@dataclass(frozen=True, slots=True)
class Stored:
    """What one file holds of M items."""

    features: Tensor
    """(n, D), in the store's dtype."""
    places: Tensor
    """int64 (n,): which of the M items each row belongs to."""
    left_out: dict[int, str] = field(default_factory=dict)
    """Why the other items have no row."""
    made_with: dict[str, Any] = field(default_factory=dict)
    """Device, batch size and versions that it was made with, as plain types."""


class FeatureStore:
    """A folder of features that runs, models and data sets share. Made when the first file is written.

    A folder that cannot be written (a full disk, another user's store) is said once and changes no result.
    """

    def __init__(self, root: str | os.PathLike[str], dtype: Literal["float32", "float16"] = "float32") -> None:
        """Raises `ConfigError` for another dtype, `StorageError` where `root` is a file."""
        if dtype not in _DTYPES:
            raise ConfigError(f"The store's dtype is {dtype!r}; allowed: {', '.join(_DTYPES)}.")
        self.root, self.dtype = Path(root), dtype
        if self.root.exists() and not self.root.is_dir():
            raise StorageError(f"{self.root} is a file; the store of features is a folder. Choose another name.")
        self._cleared: set[Path] = set()
        self.fault = ""
        """Why nothing more is written; empty while all is well."""

    def shard(self, path: str | os.PathLike[str]) -> Shard:
        """The hash of a shard: remembered while size and times of change stay as they are, or read anew.

        Raises:
            DataError: the shard cannot be read, or is being written.
        """
        place = Path(path).resolve()
        note = self.root / "shards" / f"{hashlib.sha256(os.fsencode(place)).hexdigest()}.json"
        state = _state(place)
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            said = json.loads(note.read_text(encoding="utf-8"))
            if tuple(said["state"]) == state:
                return Shard(place, str(said["sha256"]), state)
        started = time.time_ns()
        try:
            with place.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"{place}: cannot be read ({error.strerror or error}).") from error
        shard = Shard(place, digest, state)
        shard.check_unchanged()
        if started - max(state[1:]) > _UNSAFE:
            self._write(note, json.dumps({"path": str(place), "state": state, "sha256": digest}).encode())
        return shard

    def to_stored(self, features: Tensor) -> Tensor:
        """float32 features -> what is kept of them."""
        return features.to(_DTYPES[self.dtype])

    def from_stored(self, features: Tensor) -> Tensor:
        """What was kept -> float32 rows of length 1."""
        return features if features.dtype == torch.float32 else F.normalize(features.float(), dim=-1)

    def path(self, kind: Kind, key: FeatureKey, name: str) -> Path:
        """Where a file lies, or would."""
        return self.root / kind / key.sha256 / f"{name}.safetensors"

    def find(self, kind: Kind, key: FeatureKey, name: str, items: int) -> Stored | None:
        """What is kept of so many items, or None; a file that is damaged is none, and said."""
        from safetensors import SafetensorError, safe_open

        path = self.path(kind, key, name)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                features, places = file.get_tensor("features"), file.get_tensor("places")
            left_out = {int(place): str(reason) for place, reason in json.loads(metadata["left_out"]).items()}
            made_with = json.loads(metadata["made_with"])
            if metadata["sha256"] != _checksum(features, places, metadata["left_out"]):
                raise ValueError("the checksum does not fit")
            if sorted([*places.tolist(), *left_out]) != list(range(items)) or len(features) != len(places):
                raise ValueError(f"it does not hold the {items} items that were asked for")
            if features.dtype != _DTYPES[self.dtype]:
                raise ValueError(f"it holds {features.dtype}")
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("%s is damaged (%s); its features are made again", path, error)
            return None
        return Stored(features, places, left_out, made_with)

    def holds(self, kind: Kind, key: FeatureKey, name: str) -> bool:
        """Whether there is a file; it is not read."""
        return self.path(kind, key, name).exists()

    def save(self, kind: Kind, key: FeatureKey, name: str, stored: Stored) -> None:
        """Keep what was made. Where it cannot be written, that is logged once, in `fault`, and nothing else happens."""
        from safetensors.torch import save

        path = self.path(kind, key, name)
        left_out = json.dumps(stored.left_out)
        metadata = {
            "left_out": left_out,
            "made_with": json.dumps(stored.made_with),
            "sha256": _checksum(stored.features, stored.places, left_out),
        }
        tensors = {"features": stored.features.contiguous(), "places": stored.places.contiguous()}
        if path.parent not in self._cleared:
            self._cleared.add(path.parent)
            self._clear(path.parent)
        about = path.with_name("key.json")
        if not about.exists():
            self._write(about, json.dumps(key.facts, indent=2, allow_nan=False).encode())
        self._write(path, save(tensors, metadata))

    def _write(self, path: Path, data: bytes) -> None:
        if self.fault:
            return
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            self.fault = f"{path}: {error.strerror or error}"
            _log.warning(
                "The store of features cannot be written (%s). Results are not affected; what is encoded from here on "
                "is not kept for later runs.",
                self.fault,
            )

    @staticmethod
    def _clear(folder: Path) -> None:
        """Remove what killed runs left unfinished, long ago."""
        for partial in folder.glob(".*.partial"):
            with contextlib.suppress(OSError):
                if time.time() - partial.stat().st_mtime > _ABANDONED:
                    partial.unlink()


def _state(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    # Whoever copies a file with its time changes st_ctime all the same.
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _checksum(features: Tensor, places: Tensor, left_out: str) -> str:
    digest = hashlib.sha256(left_out.encode())
    for tensor in (features, places):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    """Put the new name on the disk too, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
