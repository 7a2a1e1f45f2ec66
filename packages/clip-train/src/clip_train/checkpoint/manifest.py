"""What a checkpoint is on the disk: a folder `step-00000120` with a manifest that names every file, its size and hash.

The manifest is put there last, by a rename; a folder without one is what a killed save has left, and counts for
nothing. No name is ever used twice, nothing is written into a checkpoint, and of one that is deleted the manifest goes
first. What this room leaves out: what is in the files.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from clip_train.checkpoint import disk

__all__ = ["MANIFEST", "Published", "newest", "prune", "publish", "published", "scratch_folder", "sweep", "verify"]

_log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
KEEP = 2
"""So many good checkpoints are never deleted."""
_SCHEMA = 1
_NAME = re.compile(r"step-(\d{8,})(?:\.(\d+))?")


@dataclasses.dataclass(frozen=True, slots=True)
class Published:
    """A folder with a manifest; whether its files are as the manifest says, `verify` finds out."""

    path: Path
    step: int
    stays: bool
    """Kept when newer ones come, as those of whole epochs are."""


def scratch_folder(root: Path, step: int) -> Path:
    """The path of a folder for a checkpoint of `step` in `root`, which does not exist yet and never did."""
    number, path = 1, root / f"step-{step:08d}"
    while path.exists():
        number += 1
        path = root / f"step-{step:08d}.{number}"
    return path


def publish(folder: Path, step: int, *, stays: bool, hashes: Mapping[str, Mapping[str, Any]] | None = None) -> int:
    """Make the written `folder` a checkpoint; gives its size in bytes.

    hashes: of all its files, by their paths in it, where they are known already.
    """
    files = dict(hashes or {path.relative_to(folder).as_posix(): disk.hash_file(path) for path in _files(folder)})
    body = {"schema": _SCHEMA, "step": step, "stays": stays, "files": files}
    scratch = folder / f".{MANIFEST}"
    # The names of the files have to be on the disk before the manifest that names them.
    for inner in {folder, *(path.parent for path in _files(folder))}:
        disk.sync(inner)
    disk.sync(folder.parent)
    disk.write_text(scratch, json.dumps(body, indent=1, allow_nan=False) + "\n")
    disk.publish(scratch, folder / MANIFEST)
    return sum(int(file["bytes"]) for file in files.values())


def published(root: Path) -> list[Published]:
    """The checkpoints in `root`, oldest step first, good or not."""
    found: list[tuple[int, int, Published]] = []
    for path in root.iterdir() if root.is_dir() else ():
        name = _NAME.fullmatch(path.name)
        if name is not None and (path / MANIFEST).is_file():
            stays = (_read(path) or {}).get("stays", True)
            found.append((int(name[1]), int(name[2] or 1), Published(path, int(name[1]), bool(stays))))
    return [entry for _, _, entry in sorted(found, key=lambda item: item[:2])]


def verify(folder: Path) -> str | None:
    """What is wrong with the checkpoint in `folder`; None: nothing, every byte is as it was written."""
    body = _read(folder)
    if body is None:
        return f"{MANIFEST} is missing or cannot be read"
    for name, told in body["files"].items():
        path = folder / name
        try:
            if not path.is_file():
                return f"{name} is missing"
            size = path.stat().st_size
            if size != told["bytes"]:
                return f"{name} has {size} bytes where the manifest says {told['bytes']}"
            if disk.hash_file(path)["sha256"] != told["sha256"]:
                return f"{name} is not what was written: its sha256 differs from the manifest"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror or error})"
    return None


def newest(root: Path) -> Path | None:
    """The newest checkpoint in `root` that verifies; every damaged one before it is named in the log."""
    for entry in reversed(published(root)):
        wrong = verify(entry.path)
        if wrong is None:
            return entry.path
        _log.warning("the checkpoint %s is damaged and skipped: %s", entry.path, wrong)
    return None


def prune(root: Path, *, only_newest: bool, trusted: Collection[Path] = ()) -> None:
    """Delete what newer checkpoints make superfluous; the newest two good ones stay in any case.

    Args:
        root: the folder of the checkpoints.
        only_newest: also those that stay (`Published.stays`).
        trusted: those that were read back after they were written, and need no second look.
    """
    entries = published(root)
    good: list[Path] = []
    for entry in reversed(entries):
        if len(good) == KEEP:
            break
        if entry.path in trusted or verify(entry.path) is None:
            good.append(entry.path)
    if len(good) < KEEP:
        return
    oldest = next(entry.step for entry in entries if entry.path == good[-1])
    for entry in entries:
        if entry.step < oldest and (only_newest or not entry.stays):
            disk.remove(entry.path, MANIFEST)
            _log.debug("deleted the checkpoint %s", entry.path)


def sweep(root: Path) -> None:
    """Delete what saves that were cut short have left in `root`, when nobody saves there."""
    for path in root.iterdir() if root.is_dir() else ():
        if path.is_dir() and _NAME.fullmatch(path.name) and not (path / MANIFEST).exists():
            _log.info("deleting %s: its save was cut short", path)
            disk.remove(path, MANIFEST)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        body = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(body, dict) and body.get("schema") == _SCHEMA and isinstance(body.get("files"), dict)
    return body if whole else None
