"""What a cache knows of the files in it: their size, version, hash and time, and which splits were whole once."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clip_hub.hashes import sha256_of

__all__ = ["Kept", "Ledger", "write_whole"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """A file as it was when it was fetched."""

    size: int
    version: str
    """What the store called these bytes."""
    sha256: str
    mtime: int
    """Nanoseconds."""

    @classmethod
    def of(cls, found: dict[str, Any]) -> Kept:
        """From plain types."""
        return cls(int(found["size"]), str(found["version"]), str(found["sha256"]), int(found["mtime"]))


class Ledger:
    """A JSON file of what is kept, replaced as a whole at every note; one that is damaged counts as empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: dict[str, Kept | None] = {}
        self.whole: dict[str, str] = {}
        """By split, the `digest` of the files that were complete."""

    def load(self) -> None:
        """Read it again."""
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            self._files = {str(name): entry and Kept.of(entry) for name, entry in found["files"].items()}
            self.whole = {str(split): str(digest) for split, digest in found["whole"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            self._files, self.whole = {}, {}

    def note(self, name: str, kept: Kept | None) -> None:
        """A file is here, or the store has none of that name."""
        self._files[name] = kept
        self._save()

    def note_whole(self, split: str, digest: str) -> None:
        """A split is here with all its files."""
        if self.whole.get(split) != digest:
            self.whole[split] = digest
            self._save()

    def is_known_missing(self, name: str) -> bool:
        """Whether the store has said that there is none of that name."""
        return name in self._files and self._files[name] is None

    def held(self, name: str, path: Path) -> Kept | None:
        """What is noted of a file, if `path` still has its bytes; they are read where its time has changed."""
        kept = self._files.get(name)
        if kept is None or not path.is_file():
            return None
        found = path.stat()
        if (found.st_size, found.st_mtime_ns) == (kept.size, kept.mtime):
            return kept
        if found.st_size != kept.size or sha256_of(path) != kept.sha256:
            _log.warning("%s is damaged in the cache; fetching it again", path)
            return None
        return kept

    def digest(self, names: Sequence[str]) -> str:
        """One hash for the bytes of all these files."""
        found = hashlib.sha256()
        for name in names:
            kept = self._files.get(name)
            found.update(f"{name} {kept.sha256 if kept else ''}\n".encode())
        return found.hexdigest()

    def _save(self) -> None:
        files = {name: kept and asdict(kept) for name, kept in self._files.items()}
        write_whole(self._path, json.dumps({"files": files, "whole": self.whole}, indent=1))


def write_whole(path: Path, text: str) -> None:
    """Put a small file under its name at once."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
