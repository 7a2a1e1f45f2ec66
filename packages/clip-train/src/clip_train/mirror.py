"""A copy of the run folder somewhere else, kept up to date while the run goes on (`--remote-sync`).

A thread of the first process copies what has changed since it last looked; a manifest comes after the files that it
names, so a checkpoint over there is whole or does not count. Nothing is deleted there. What this room leaves out:
training from there.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Literal

from clip_core.errors import ConfigError

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
        self._seen: dict[Path, Stamp] = {}
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
        changed = [path for path in self._files() if self._seen.get(path) != _stamp(path)]
        for path in changed:
            self._copy_one(path)
        return len(changed)

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
        files = [path for path in self.folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
        # What names other files comes after them.
        return sorted(files, key=lambda path: ("manifest" in path.name, path.name == "summary.json", str(path)))

    def _copy_one(self, path: Path) -> None:
        import fsspec

        try:
            stamp = _stamp(path)
            target = f"{self.remote}/{path.relative_to(self.folder).as_posix()}"
            system, place = fsspec.core.url_to_fs(target)
            system.makedirs(place.rpartition("/")[0], exist_ok=True)
            system.put_file(str(path), place)
        except FileNotFoundError:
            # A checkpoint may be deleted at any time.
            if path.exists():
                raise
            return
        self._seen[path] = stamp

    def _call_aws(self) -> None:
        program = shutil.which("aws")
        if program is None:
            raise ConfigError("the program aws is not installed; --remote-sync-protocol fsspec needs none")
        done = subprocess.run(
            [program, "s3", "sync", str(self.folder), self.remote], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ConfigError(f"aws s3 sync ended with {done.returncode}: {done.stderr.strip()[-300:]}")


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
