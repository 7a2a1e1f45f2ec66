"""Shards that lie elsewhere, brought into a folder of bounded size: any URL that fsspec or a web server knows, `pipe:`.

    CACHE/shards/DIGEST.tar      whole shards; the name is made of address and identity, so it tells what is in it
    CACHE/shards/DIGEST.part     what has arrived of one; a URL goes on from there
    CACHE/shards/DIGEST.lock     held by the process that fetches it: processes of a machine fetch each shard once

A transfer that breaks or stalls is tried again (`clip_hub.retrying`) and then stops the run: it never counts as bad
data. What was used longest ago makes room. What this room leaves out: what is in a shard.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import posixpath
import shutil
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from clip_core.errors import DataError, StorageError
from clip_eval.places.stores import Promise, Store, open_store
from clip_hub.retrying import Broken, retrying
from clip_hub.transfer import CannotFetch
from clip_train.data.piping import piped
from clip_train.data.table import Identity
from clip_train.data.watching import watched

__all__ = ["ShardCache"]

_log = logging.getLogger(__name__)
_BLOCK = 1 << 20
# How often the time of a shard that is read is brought up to date, in seconds.
_TOUCHED = 30.0


class ShardCache:
    """The folder that shards are brought into. Holds no open files and pickles."""

    def __init__(self, folder: str | Path, *, limit: int, stall: float) -> None:
        """`limit`: bytes of all shards in it together; `stall`: seconds after which a transfer counts as hung."""
        self.folder = Path(folder) / "shards"
        self.limit = limit
        self.stall = stall
        self._touched: dict[str, float] = {}

    def ask(self, address: str) -> Identity | None:
        """What the store of a URL says about a shard now; None for a command, which nothing can be asked about.

        Raises `DataError` when there is none, or no answer.
        """
        if address.startswith("pipe:"):
            return None
        promise = self._promise(address)
        return Identity(promise.size, promise.version)

    def fetch(self, address: str) -> tuple[Path, Identity]:
        """Bring a shard of which nothing is known, and say what has arrived.

        Raises:
            DataError: it is not there, or does not arrive after several tries.
            StorageError: there is no room for it.
        """
        promise = None if address.startswith("pipe:") else self._promise(address)
        known = "" if promise is None else f"{promise.size} {promise.version}"
        with self._locked(_digest(address, "first", known)) as name:
            part = self.folder / f"{name}.part"
            found = self._receive(address, part, promise, None)
            identity = Identity(found[0], promise.version if promise is not None else "", found[1])
            place = self._place(address, identity)
            os.replace(part, place)
            return place, identity

    def get(self, address: str, identity: Identity) -> Path:
        """The path of a shard that has been fetched once, fetched again unless it is here.

        Raises `DataError` as `fetch`, and when other bytes arrive than the first time.
        """
        place = self._place(address, identity)
        if self._is_here(place, identity):
            return place
        with self._locked(place.stem) as name:
            if self._is_here(place, identity):
                return place
            part = self.folder / f"{name}.part"
            promise = None if address.startswith("pipe:") else Promise(identity.size, identity.version)
            for last in (False, True):
                size, sha256 = self._receive(address, part, promise, identity)
                if (size, sha256) == (identity.size, identity.sha256):
                    break
                part.unlink()
                if last:
                    raise DataError(
                        f"{address}: {size} bytes with the sha256 {sha256} arrived twice; when it was indexed it had "
                        f"{identity.size} with {identity.sha256}. It has changed since; start again to index it anew."
                    )
                _log.warning("%s arrived with other bytes than before; fetching it again", address)
            os.replace(part, place)
        return place

    def forget(self, address: str, identity: Identity) -> None:
        """Remove a shard, so that it is fetched again."""
        self._place(address, identity).unlink(missing_ok=True)

    def has(self, address: str, identity: Identity) -> bool:
        """Whether a shard is here."""
        return self._place(address, identity).is_file()

    def _is_here(self, place: Path, identity: Identity) -> bool:
        try:
            if place.stat().st_size != identity.size:
                return False
        except OSError:
            return False
        now = time.monotonic()
        if now - self._touched.get(place.name, -_TOUCHED) >= _TOUCHED:
            self._touched[place.name] = now
            with contextlib.suppress(OSError):
                os.utime(place)
        return True

    def _place(self, address: str, identity: Identity) -> Path:
        return self.folder / f"{_digest(address, identity.sha256, str(identity.size))}.tar"

    def _promise(self, address: str) -> Promise:
        folder, name = _split(address)
        try:
            found = retrying(lambda: _store(folder).ask(name), address)
        except (Broken, CannotFetch) as error:
            raise DataError(f"{address}: {error}.") from error
        if found is None:
            raise DataError(f"{address}: there is no such file. Check the address and the number of shards.")
        return found

    def _receive(self, address: str, part: Path, promise: Promise | None, identity: Identity | None) -> tuple[int, str]:
        """Fills `part` and gives its size and sha256."""
        expected = promise.size if promise is not None else identity.size if identity is not None else None
        self._make_room(expected or 0, address)
        try:
            if promise is None:
                return retrying(lambda: self._fill_from_command(address, part, expected), address)
            return retrying(lambda: self._fill_from_store(address, part, promise), address)
        except (Broken, CannotFetch) as error:
            raise DataError(
                f"{address}: {error}. This is trouble of the place that it comes from and not of the data, so the run "
                "ends here instead of going on without it."
            ) from error
        except OSError as error:
            raise StorageError(f"{self.folder}: {address} cannot be kept there ({error.strerror or error}).") from error

    def _fill_from_command(self, address: str, part: Path, expected: int | None) -> tuple[int, str]:
        digest, size = hashlib.sha256(), 0
        with part.open("wb") as file:
            for block in piped(address.removeprefix("pipe:"), self.stall):
                file.write(block)
                digest.update(block)
                size += len(block)
        if expected is not None and size < expected:
            raise Broken(f"{size} of {expected} bytes arrived")
        if not size:
            raise Broken("the command wrote nothing")
        return size, digest.hexdigest()

    def _fill_from_store(self, address: str, part: Path, promise: Promise) -> tuple[int, str]:
        if not promise.version or (part.is_file() and part.stat().st_size > promise.size):
            part.unlink(missing_ok=True)  # nothing says that it belongs to what is there today
        digest, folder, name = hashlib.sha256(), *_split(address)
        with part.open("a+b") as file:
            file.seek(0)
            while block := file.read(_BLOCK):
                digest.update(block)
            size = begin = file.tell()
            if begin < promise.size:
                for block in watched(lambda: _store(folder).blocks(name, begin, promise), self.stall, address):
                    file.write(block)
                    digest.update(block)
                size = file.tell()
        if size < promise.size:
            raise Broken(f"{size} of {promise.size} bytes arrived")
        if size > promise.size:
            part.unlink()
            raise Broken(f"{size} bytes arrived instead of {promise.size}")
        return size, digest.hexdigest()

    def _make_room(self, needed: int, address: str) -> None:
        if needed > self.limit:
            raise StorageError(f"{address} has {needed} bytes, and --data-cache-gb allows {self.limit} for all shards.")
        held = sorted(
            (found.st_mtime, found.st_size, path) for path in self.folder.glob("*.tar") if (found := _stat(path))
        )
        total = sum(size for _, size, _ in held)
        free = shutil.disk_usage(self.folder).free
        for _, size, path in held:
            if total + needed <= self.limit and free > needed:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                total, free = total - size, free + size
        if free <= needed:
            raise StorageError(
                f"{self.folder} has room for {free / 1e9:.2f} GB, and {address} needs {needed / 1e9:.2f} GB. Make "
                "room, or choose another --data-cache."
            )

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[str]:
        from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # it is there, and not listed

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"{self.folder} cannot be made ({error.strerror or error}): see --data-cache."
            ) from error
        with WeakFileLock(self.folder / f"{name}.lock"):
            yield name


def _digest(*words: str) -> str:
    return hashlib.sha256("\n".join(words).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _split(address: str) -> tuple[str, str]:
    """The address of the folder, and the name in it; what follows a "?" stays with the folder."""
    if not address.startswith(("http://", "https://")):
        folder, _, name = address.rpartition("/")
        return folder, name
    parts = urllib.parse.urlsplit(address)
    folder, name = posixpath.split(parts.path)
    return urllib.parse.urlunsplit(parts._replace(path=folder)), urllib.parse.unquote(name)


def _store(folder: str) -> Store:
    # Made anew each time: file systems with threads of their own do not survive a fork.
    return open_store(folder)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
