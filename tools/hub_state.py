"""What a Hub of ours knows: repositories with commits, branches and pull requests, and the bytes of their files.

Everything is in memory. `hub_server` speaks HTTP for it. What this room leaves out: who may see what.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field

__all__ = ["Commit", "Files", "Repository", "StoredFile", "history", "is_large"]

LARGE_SUFFIXES = (".bin", ".gz", ".h5", ".msgpack", ".model", ".npz", ".onnx", ".pt", ".pth", ".safetensors", ".zip")
"""What the Hub stores by its sha256 whatever its size, as its default .gitattributes says (in part)."""
LARGE_SIZE = 10 << 20
"""Bytes from which the Hub stores any file by its sha256."""


@dataclass(frozen=True)
class StoredFile:
    """The bytes of a file, and whether they are in large file storage, named by their sha256."""

    data: bytes
    large: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def git_hash(self) -> str:
        """What git calls the file: for a large one, the little text that points at it."""
        data = self.pointer if self.large else self.data
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()

    @property
    def pointer(self) -> bytes:
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n"
        return text.encode()

    @property
    def etag(self) -> str:
        return self.sha256 if self.large else self.git_hash

    @classmethod
    def of(cls, name: str, data: bytes) -> StoredFile:
        """With the storage that the Hub chooses for a file of this name and size."""
        return cls(data, is_large(name, len(data)))


def is_large(name: str, size: int) -> bool:
    """Whether the Hub keeps a file in large file storage; it never does with an empty one."""
    return size > 0 and (name.endswith(LARGE_SUFFIXES) or size >= LARGE_SIZE)


@dataclass(frozen=True)
class Commit:
    """Files by path, as one commit left them."""

    id: str
    title: str
    files: Mapping[str, StoredFile]
    parent: Commit | None = None


@dataclass
class Repository:
    """Commits, and the names of some of them: "main", other branches, "refs/pr/1"."""

    name: str
    private: bool = False
    gated: bool = False
    refs: dict[str, Commit] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    """What was put into large file storage, by its sha256; a commit may refer to it."""
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.refs.setdefault("main", self._commit("initial commit", {}, None))

    def find(self, revision: str) -> Commit | None:
        """The commit that a branch, a tag, a pull request or a (shortened) hash names."""
        if revision in self.refs:
            return self.refs[revision]
        seen = [commit for tip in list(self.refs.values()) for commit in history(tip)]
        return next((commit for commit in seen if len(revision) >= 7 and commit.id.startswith(revision)), None)

    def change(self, revision: str, title: str, changes: Mapping[str, StoredFile | None]) -> Commit:
        """A further commit on a branch, with files added, replaced or (None) removed."""
        with self._lock:
            before = self.refs[revision]
            files = {path: found for path, found in {**before.files, **changes}.items() if found is not None}
            self.refs[revision] = after = self._commit(title, files, before)
            return after

    def open_pull_request(self, revision: str) -> str:
        """The name of a further pull request that starts at `revision`."""
        with self._lock:
            number = 1 + sum(name.startswith("refs/pr/") for name in self.refs)
            found = self.find(revision)
            assert found is not None
            self.refs[f"refs/pr/{number}"] = found
            return f"refs/pr/{number}"

    def _commit(self, title: str, files: Mapping[str, StoredFile], parent: Commit | None) -> Commit:
        told = [
            self.name,
            title,
            parent.id if parent else "",
            *(f"{name} {files[name].etag}" for name in sorted(files)),
        ]
        return Commit(hashlib.sha1("\n".join(told).encode(), usedforsecurity=False).hexdigest(), title, files, parent)


def history(commit: Commit) -> Iterator[Commit]:
    """`commit` and those before it, newest first."""
    current: Commit | None = commit
    while current is not None:
        yield current
        current = current.parent


class Files(MutableMapping[tuple[str, str], bytes]):
    """Files of the main branches by (repository, path); writing one makes a commit, and the repository where needed."""

    def __init__(self, repositories: dict[str, Repository]) -> None:
        self._repositories = repositories

    def __getitem__(self, key: tuple[str, str]) -> bytes:
        return self._repositories[key[0]].refs["main"].files[key[1]].data

    def __setitem__(self, key: tuple[str, str], data: bytes) -> None:
        repo, path = key
        repository = self._repositories.setdefault(repo, Repository(repo))
        repository.change("main", f"Upload {path}", {path: StoredFile.of(path, data)})

    def __delitem__(self, key: tuple[str, str]) -> None:
        repo, path = key
        if key not in self:
            raise KeyError(key)
        self._repositories[repo].change("main", f"Delete {path}", {path: None})

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for repo, repository in list(self._repositories.items()):
            for path in list(repository.refs["main"].files):
                yield repo, path

    def __len__(self) -> int:
        return sum(1 for _ in self)
