"""What has arrived of a file, in a file of this process's own, beginning with what an ended download has left.

A lock keeps two processes from fetching the same bytes, and there are file systems of clusters where a lock holds on
one machine only. So nobody writes where somebody else may: an unfinished file is taken over by renaming it, and only
when its writer has ended: it said so, its process is gone, or nothing was written for ten minutes. What this room
leaves out: whose bytes they are.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

__all__ = ["partial"]

_SILENT = 600.0
"""Seconds without a written byte after which the writer of an unfinished file counts as gone."""


@contextmanager
def partial(blob: Path) -> Iterator[Path]:
    """The path of a file for what arrives of `blob`; if it is not moved away, the next download goes on from it."""
    own = blob.with_name(f"{blob.name}.{_machine()}-{os.getpid()}-{uuid4().hex[:8]}.incomplete")
    kept = blob.with_name(f"{blob.name}.incomplete")
    left = [path for path in [kept, *blob.parent.glob(f"{blob.name}.*.incomplete")] if _is_left(path, kept)]
    left.sort(key=_size)
    if left:
        with contextlib.suppress(FileNotFoundError):  # somebody else was faster
            os.rename(left.pop(), own)
    for path in left:
        path.unlink(missing_ok=True)
    try:
        yield own
    finally:
        with contextlib.suppress(OSError):
            if _size(own) > _size(kept):
                os.replace(own, kept)
            own.unlink(missing_ok=True)


def _is_left(path: Path, kept: Path) -> bool:
    """Whether nobody writes into an unfinished file any more."""
    if path == kept:
        return path.is_file()
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime > _SILENT:
            return True
        named = re.fullmatch(r".*\.([\w-]+)-(\d+)-[0-9a-f]{8}\.incomplete", path.name)
        # Windows has no question of this kind: its os.kill ends the process.
        return named is not None and named[1] == _machine() and os.name == "posix" and not _runs(int(named[2]))
    return False


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _machine() -> str:
    return re.sub(r"\W", "_", socket.gethostname())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
