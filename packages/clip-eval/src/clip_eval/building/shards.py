"""Numbered tars of samples, each closed when it is full; the bytes depend on the members only."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from clip_eval.wds import ShardFacts, shard_sha256

__all__ = ["ShardWriter"]


class ShardWriter:
    """Writes `folder`/0.tar and so on; a context manager, after which `facts` says what each of them holds."""

    def __init__(self, folder: Path, max_count: int, max_size: int) -> None:
        """max_count, max_size: the sample behind so many samples, or bytes of members, begins another shard."""
        self._folder, self._max_count, self._max_size = folder, max_count, max_size
        self._tar: tarfile.TarFile | None = None
        self._count = self._size = 0
        self.facts: list[ShardFacts] = []

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def add(self, key: str, members: Mapping[str, bytes]) -> None:
        """Write one sample: bytes by extension."""
        if self._count >= self._max_count or self._size >= self._max_size:
            self._close()
        if self._tar is None:
            self._tar = tarfile.open(self._path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115  # see _close
        for extension, data in members.items():
            info = tarfile.TarInfo(f"{key}.{extension}")
            info.size, info.mode, info.uname, info.gname = len(data), 0o444, "clip", "clip"
            self._tar.addfile(info, io.BytesIO(data))
            self._size += len(data)
        self._count += 1

    @property
    def _path(self) -> Path:
        return self._folder / f"{len(self.facts)}.tar"

    def _close(self) -> None:
        if self._tar is None:
            return
        self._tar.close()
        path = self._path
        self.facts.append(ShardFacts(self._count, path.stat().st_size, shard_sha256(path)))
        self._tar, self._count, self._size = None, 0, 0
