"""A copy of the run folder somewhere else, kept up to date while the run goes on (`--remote-sync`).

A thread of the first process copies what has changed since it last looked; a manifest comes after the files that it
names, so a checkpoint over there is whole or does not count. One that is there already, by its manifest and the sizes
in it, is not copied again when the run is started again. Nothing is deleted there, but the manifest of a checkpoint
that is about to be replaced. What this room leaves out: training from there.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from clip_core.errors import ConfigError
from clip_train.checkpoint.manifest import MANIFEST
from clip_train.checkpoint.resume import CHECKPOINTS

__all__ = ["Mirror"]

_log = logging.getLogger(__name__)

Stamp = tuple[int, int]


class Mirror:
    """Copies `folder` to `remote` every `seconds`, and once more at the end; a context manager.

    protocol: "fsspec" takes any of its addresses (s3://, gs://, file://, a plain path), "s3" calls `aws s3 sync` as
    open_clip does. Raises `ConfigError` where the first copy fails; later failures are logged and tried again.
    """

    def __init__(self, folder: Path, remote: str, *, seconds: int, protocol: Literal["s3", "fsspec"]) -> None:
        self.folder = folder
        self.remote = f"{remote.rstrip('/')}/{folder.name}"
        self._protocol = protocol
        self._seconds = seconds
        self._seen: dict[Path, Stamp | None] = {}
        self._root = folder / CHECKPOINTS
        # Folders of checkpoints that were compared with what is there.
        self._known: set[Path] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)

    def __enter__(self) -> Mirror:
        try:
            self.copy()
        except Exception as error:
            raise ConfigError(
                f"--remote-sync {self.remote} cannot be written ({self._protocol}): {error}. Mend it or leave it out."
            ) from error
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        self._try()

    def copy(self) -> int:
        """Copy what has changed; returns how many files that were, or 0 where aws does it."""
        if self._protocol == "s3":
            self._call_aws()
            return 0
        files = self._files()
        for folder in sorted(path for path in self._root.glob("*") if path.is_dir()):
            self._compare(folder)
        copied = 0
        for path in files:
            if self._seen.get(path) == _stamp(path):
                continue
            if path.name == MANIFEST and not self._has_all_of(path):
                # It was published while this looked around; the next time it is complete.
                continue
            self._copy_one(path)
            copied += 1
        return copied

    def _compare(self, folder: Path) -> None:
        """Know what is there already of a checkpoint; of one that is not the same the manifest goes first."""
        if folder in self._known:
            return
        system, place = self._place(folder)
        try:
            theirs = system.cat_file(f"{place}/{MANIFEST}")
            # What a store lists may have no slash in front where its addresses have one.
            begin = place.strip("/")
            sizes = {path.strip("/"): info["size"] for path, info in system.find(place, detail=True).items()}
        except FileNotFoundError:
            # Any other error says nothing of what is there: then it is asked again, before anything is copied.
            self._known.add(folder)
            return
        names = _named_in(folder / MANIFEST)
        held = all(sizes.get(f"{begin}/{name}") == size for name, size in names.items())
        if not (names and held and theirs == (folder / MANIFEST).read_bytes()):
            system.rm_file(f"{place}/{MANIFEST}")
            self._known.add(folder)
            return
        self._known.add(folder)
        for path in (folder / MANIFEST, *(folder / name for name in names)):
            self._seen[path] = _stamp(path)
        _log.info("%s is there already: %s", folder.name, self.remote)

    def _has_all_of(self, manifest: Path) -> bool:
        return all(manifest.parent / name in self._seen for name in _named_in(manifest))

    def _work(self) -> None:
        while not self._end.wait(self._seconds):
            self._try()

    def _try(self) -> None:
        try:
            self.copy()
        # Whatever a storage library raises: the run is worth more than its copy.
        except Exception as error:
            _log.warning("the copy at %s is behind: %s; it is tried again", self.remote, error)

    def _files(self) -> list[Path]:
        # Hidden are files that are being written, and what torch calls the list of a sharded checkpoint's tensors.
        files = [
            path
            for path in self.folder.rglob("*")
            if path.is_file() and (path.name == ".metadata" or not path.name.startswith("."))
        ]
        # What names other files comes after them.
        return sorted(files, key=lambda path: ("manifest" in path.name, path.name == "summary.json", str(path)))

    def _copy_one(self, path: Path) -> None:
        stamp = _stamp(path)
        try:
            system, place = self._place(path)
            system.makedirs(place.rpartition("/")[0], exist_ok=True)
            system.put_file(str(path), place)
        except FileNotFoundError:
            # A checkpoint may be deleted at any time.
            if path.exists():
                raise
            return
        self._seen[path] = stamp

    def _place(self, path: Path) -> tuple[Any, str]:
        """The file system, and where in it the copy of `path` is."""
        import fsspec

        found: tuple[Any, str] = fsspec.core.url_to_fs(f"{self.remote}/{path.relative_to(self.folder).as_posix()}")
        return found

    def _call_aws(self) -> None:
        program = shutil.which("aws")
        if program is None:
            raise ConfigError("the program aws is not installed; --remote-sync-protocol fsspec needs none")
        # Those that are there before the files are copied, and after them.
        manifests = [path.relative_to(self.folder).as_posix() for path in self._files() if path.name == MANIFEST]
        self._sync(program, "--exclude", f"*{MANIFEST}")
        if manifests:
            self._sync(program, "--exclude", "*", *(word for name in manifests for word in ("--include", name)))

    def _sync(self, program: str, *which: str) -> None:
        done = subprocess.run(
            [program, "s3", "sync", str(self.folder), self.remote, *which], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ConfigError(f"aws s3 sync ended with {done.returncode}: {done.stderr.strip()[-300:]}")


def _named_in(manifest: Path) -> dict[str, int]:
    """The files of a checkpoint, by their paths in its folder, and their bytes; none where it is gone."""
    try:
        return {name: int(told["bytes"]) for name, told in json.loads(manifest.read_bytes())["files"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _stamp(path: Path) -> Stamp | None:
    """None where it is gone."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns
