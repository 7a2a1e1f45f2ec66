"""One repository in huggingface_hub's cache, and which of its files were verified.

    models--org--name/refs/main                    the commit that "main" meant; "datasets--" for data sets
                      snapshots/COMMIT/FILE        a link to
                      blobs/HASH                   the bytes, called by the hash that the Hub promises
                      blobs/HASH.incomplete        what arrived of them so far; see `partial`
                      .no_exist/COMMIT/FILE        the Hub said that there is no such file
                      .verified/HASH               ours: size, times and inode of the bytes when their hash was right
                      .contents/COMMIT             ours: which files the commit holds; see `contents`

The layout is huggingface_hub's, so that its other users find our files and we theirs. What this room leaves out: the
network.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from time import sleep
from typing import Literal, get_args
from uuid import uuid4

from clip_core.errors import ConfigError
from clip_hub.hashes import git_hash, sha256_of

__all__ = ["RepositoryCache", "RepositoryType", "is_commit", "is_hash"]

RepositoryType = Literal["model", "dataset"]

_TICK = 0.02
"""Seconds after which a change of a file shows in its times; file systems count in steps of up to 10 ms."""


def is_hash(etag: str) -> bool:
    """Whether an etag is a sha256, as large files have, or the hash of a git object, as small ones have."""
    return re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{40}", etag) is not None


def is_commit(revision: str) -> bool:
    """Whether a revision is a full commit hash, whose files never change."""
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


@dataclass(frozen=True)
class RepositoryCache:
    """Where the files of `repo` are under the cache folder `root`."""

    repo: str
    root: Path
    type: RepositoryType = "model"

    @classmethod
    def of(
        cls, repo: str, cache_dir: str | os.PathLike[str] | None, repo_type: RepositoryType = "model"
    ) -> RepositoryCache:
        """Under `cache_dir`, or where huggingface_hub keeps its files."""
        from huggingface_hub import constants
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # it is there, and not listed

        if repo_type not in get_args(RepositoryType):
            raise ConfigError(f"repo_type={repo_type!r}; allowed: {', '.join(get_args(RepositoryType))}.")
        validate_repo_id(repo)
        return cls(repo, Path(cache_dir if cache_dir is not None else constants.HF_HUB_CACHE).expanduser(), repo_type)

    @property
    def folder(self) -> Path:
        return self.root / "--".join([f"{self.type}s", *self.repo.split("/")])

    def find(self, name: str, revision: str) -> Path | None:
        """The file as it was when `revision` was last asked for; None where it is not here."""
        path = self._snapshot(self.commit(revision), name)
        return path if path.is_file() else None

    def known_missing(self, name: str, revision: str) -> bool:
        """Whether the Hub has said before that this revision has no such file."""
        return (self.folder / ".no_exist" / self.commit(revision) / _relative(name)).is_file()

    def commit(self, revision: str) -> str:
        """The commit that `revision` last meant; itself where that is not known."""
        if is_commit(revision):
            return revision
        with contextlib.suppress(OSError):
            return (self.folder / "refs" / _relative(revision)).read_text(encoding="utf-8").strip() or revision
        return revision

    def blob(self, etag: str) -> Path:
        """Where the bytes that the Hub calls `etag` belong."""
        return self.folder / "blobs" / re.sub(r"[^\w-]", "_", etag)

    @contextmanager
    def lock(self, etag: str) -> Iterator[None]:
        """Wait until no other process, of ours or of huggingface_hub, fetches these bytes."""
        from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # it is there, and not listed

        place = self.root / ".locks" / self.folder.name / f"{self.blob(etag).name}.lock"
        place.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(place):
            yield

    def link(self, commit: str, name: str, blob: Path) -> Path:
        """The path of a file in the snapshot of its commit, made to lead to its bytes."""
        path = self._snapshot(commit, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        target = os.path.relpath(blob, path.parent)
        beside = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
        try:
            os.symlink(target, beside)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            # A file system without links: the bytes themselves lie in the snapshot, as huggingface_hub does it there.
            os.replace(blob, path)
            self.mark(path, blob.name)
            return path
        os.replace(beside, path)
        return path

    def remember(self, revision: str, commit: str) -> None:
        """Note which commit a branch means, for the next time without the Hub; a cache one may not write stays."""
        if revision == commit or self.commit(revision) == commit:
            return
        with contextlib.suppress(OSError):
            _write(self.folder / "refs" / _relative(revision), commit)

    def remember_missing(self, commit: str, name: str) -> None:
        """Note that a commit has no such file."""
        with contextlib.suppress(OSError):
            _write(self.folder / ".no_exist" / commit / _relative(name), "")

    def contents(self, commit: str) -> str | None:
        """What `remember_contents` was given for a commit."""
        with contextlib.suppress(OSError):
            return (self.folder / ".contents" / _relative(commit)).read_text(encoding="utf-8")
        return None

    def remember_contents(self, commit: str, text: str) -> None:
        """Keep which files a commit holds, for the next time without the Hub."""
        with contextlib.suppress(OSError):
            _write(self.folder / ".contents" / _relative(commit), text)

    def promised(self, path: Path) -> str:
        """The hash that a file of the cache should have, by its name or its mark; "" where neither tells."""
        blob = path.resolve().name
        if is_hash(blob):
            return blob
        return str(self._mark_of(path).get("hash", ""))

    def is_marked(self, path: Path) -> bool:
        """Whether the file was verified and has not been touched since."""
        mark = self._mark_of(path)
        return bool(mark) and all(mark.get(name) == value for name, value in _state(path).items())

    def mark(self, path: Path, digest: str) -> None:
        """Note that the hash of the file was found to be right."""
        sleep(_TICK)  # so that whatever changes the file from here on changes its times
        with contextlib.suppress(OSError):
            _write(self._mark(path), json.dumps({"hash": digest, **_state(path)}))

    def is_sound(self, path: Path, digest: str) -> bool:
        """Whether the bytes are those that the Hub calls `digest`: a sha256, or a hash of a git object."""
        if len(digest) == 64:
            return sha256_of(path) == digest
        return git_hash(path.read_bytes()) == digest

    def discard(self, path: Path) -> None:
        """Take a file out of the cache, and the bytes that it leads to."""
        self._mark(path).unlink(missing_ok=True)
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)

    def _snapshot(self, commit: str, name: str) -> Path:
        return self.folder / "snapshots" / _relative(commit) / _relative(name)

    def _mark(self, path: Path) -> Path:
        blob = path.resolve()
        if blob.parent.name == "blobs":
            return self.folder / ".verified" / blob.name
        told = str(path.absolute().relative_to(self.folder.absolute()))
        return self.folder / ".verified" / hashlib.sha256(told.encode()).hexdigest()

    def _mark_of(self, path: Path) -> dict[str, object]:
        try:
            found = json.loads(self._mark(path).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _relative(name: str) -> Path:
    """A name of a repository as a path below a folder; a repository may be anybody's, and name what it likes."""
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name:
        raise ConfigError(f"{name!r} is no name inside a repository; it leads out of it.")
    return Path(*path.parts)


def _state(path: Path) -> dict[str, int]:
    found = path.stat()
    return {"size": found.st_size, "mtime": found.st_mtime_ns, "ctime": found.st_ctime_ns, "inode": found.st_ino}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
