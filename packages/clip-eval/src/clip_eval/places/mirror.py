"""Files of one data set from a store, kept in a cache on this machine, each of them whole or not there.

    HOME/DIGEST/address.txt      where they come from; DIGEST is the beginning of its sha256
    HOME/DIGEST/state.json       of each file its size, what the store called its version, sha256 and time; of each
                                 split that was whole once, which files that was
    HOME/DIGEST/lock             held by the process that fetches
    HOME/DIGEST/NAME/...         the data set as it lies there

A file gets its name when all of its bytes are there, its size is the promised one and its hash too where one is known.
What arrived of a file that was cut short is kept and continued, as long as the store still calls it the same. Where the
store is out of reach the cache is used, unless its files are not those of one complete fetch.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from clip_core.errors import ClipError
from clip_eval.places.ledger import Kept, Ledger, write_whole
from clip_eval.places.stores import Promise, Store
from clip_hub.download import DownloadError
from clip_hub.hashes import sha256_of
from clip_hub.partial import partial
from clip_hub.retrying import Broken, retrying
from clip_hub.transfer import CannotFetch, is_full_disk

__all__ = ["Mirror"]

_log = logging.getLogger(__name__)


_UNKNOWN = Promise(-1, "")
"""The store did not answer."""


class Mirror:
    """The folder on this machine for what lies at `address`; `store` is None where nothing may be asked."""

    def __init__(self, address: str, name: str, home: Path, store: Callable[[], Store] | None) -> None:
        self.address = address
        self._base = home / hashlib.sha256(address.encode()).hexdigest()[:16]
        self.folder = self._base / name
        self._open = store
        self._store: Store | None = None
        self._ledger = Ledger(self._base / "state.json")
        self._promises: dict[str, Promise | None] = {}
        self._unasked = False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from fetching the same; raises `DownloadError` where the cache cannot be written."""
        from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # it is there, and not listed

        try:
            self._base.mkdir(parents=True, exist_ok=True)
            with WeakFileLock(self._base / "lock"):
                write_whole(self._base / "address.txt", self.address + "\n")
                self._ledger.load()
                self._promises.clear()
                self._unasked = False
                yield
        except ClipError:
            raise
        except OSError as error:
            cause = (
                "the disk is full; free some space, or pass another cache_dir. What arrived is kept"
                if is_full_disk(error)
                else f"the cache cannot be used ({error}); change that, or pass another cache_dir"
            )
            raise DownloadError(f"Cannot keep {self.address} in {self._base}: {cause}.") from error

    def look(self, name: str) -> tuple[int | None, bool]:
        """The size of a file there, None where there is none, and whether the cache has it; nothing is fetched.

        Raises:
            DownloadError: no access, or no connection and nothing in the cache.
        """
        held = self._ledger.held(name, self._path(name))
        promise = self._ask(name, held)
        if promise is _UNKNOWN:
            return (held.size, True) if held is not None else (None, False)
        if promise is None:
            return None, False
        return promise.size, held is not None and _is_newest(held, promise)

    def bring(self, name: str, *, sha256: str = "", arrived: Callable[[int], object] = lambda _: None) -> Path | None:
        """The path of a file that is whole, fetched unless it is here; None where the store has none of that name.

        Args:
            name: below the data set, with "/".
            sha256: what its bytes must have, where that is known.
            arrived: called with the number of bytes of each block.

        Raises:
            DownloadError: no access, no connection, or other bytes than the store or `sha256` promises.
        """
        held = self._ledger.held(name, self._path(name))
        promise = self._ask(name, held)
        path = self._path(name)
        if promise is _UNKNOWN:
            return path if held is not None else None
        if promise is None:
            path.unlink(missing_ok=True)
            self._ledger.note(name, None)
            return None
        if held is not None and _is_newest(held, promise) and sha256 in ("", held.sha256):
            arrived(held.size)
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = self._receive(name, promise, sha256, arrived)
        self._ledger.note(name, Kept(promise.size, promise.version, digest, path.stat().st_mtime_ns))
        return path

    def complete(self, split: str, names: Sequence[str]) -> None:
        """Note that `names` are a split as a whole, and remove its shards that are not among them.

        Raises:
            DownloadError: the store did not answer, and what is here was not fetched together.
        """
        digest = self._ledger.digest(names)
        if self._unasked and self._ledger.whole.get(split) != digest:
            raise DownloadError(
                f"Cannot fetch {self.address}: the cache has files of two versions, because a fetch was not completed, "
                "and the rest is out of reach. Fetch it once more with the network on."
            )
        for path in (self.folder / split).glob("*.tar"):
            if f"{split}/{path.name}" not in names:
                path.unlink()
        self._ledger.note_whole(split, digest)

    def _receive(self, name: str, promise: Promise, sha256: str, arrived: Callable[[int], object]) -> str:
        """Fetches a file to its place and gives the sha256 of its bytes."""
        head, path = f"Cannot fetch {self.address}/{name}", self._path(name)
        # Beginnings are kept apart by what the store called the file, so that two versions are never one file.
        version = hashlib.sha256(f"{promise.size} {promise.version}".encode()).hexdigest()[:12]
        blob = path.with_name(f".{path.name}.{version}")
        with partial(blob) as part:
            arrived(part.stat().st_size if part.is_file() and promise.version else 0)
            wrong = 0
            while True:
                continued = part.is_file() and part.stat().st_size > 0
                try:
                    retrying(lambda: self._fill(name, promise, part, arrived), f"{self.address}/{name}")
                except Broken as error:
                    raise DownloadError(f"{head}: {error}. What arrived is kept; try again later.") from error
                except CannotFetch as error:
                    raise DownloadError(f"{head}: {error}.") from error
                found = sha256_of(part)
                difference = _difference(part, found, promise, sha256)
                if not difference:
                    break
                part.unlink()
                wrong += not continued  # what lay there from before may have been at fault
                if wrong == 2:
                    raise DownloadError(f"{head}: it arrived with {difference} twice and was thrown away.")
                _log.warning("%s/%s arrived with %s; fetching it again", self.address, name, difference)
            os.replace(part, path)
        for left in path.parent.glob(f".{path.name}.*.incomplete"):
            left.unlink(missing_ok=True)
        return found

    def _fill(self, name: str, promise: Promise, part: Path, arrived: Callable[[int], object]) -> None:
        held = part.stat().st_size if part.is_file() else 0
        if held > promise.size or not promise.version:  # nothing says that it belongs to what is there today
            part.unlink(missing_ok=True)
            held = 0
        with part.open("ab") as file:
            if held < promise.size:
                for block in self._opened().blocks(name, held, promise):
                    file.write(block)
                    arrived(len(block))
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        if size < promise.size:
            raise Broken(f"{size} of {promise.size} bytes arrived")
        if size > promise.size:
            part.unlink()
            raise Broken(f"{size} bytes arrived instead of {promise.size}: it has changed meanwhile")

    def _ask(self, name: str, held: Kept | None) -> Promise | None:
        """What the store promises, once for each file; `_UNKNOWN` where it does not answer and the cache knows."""
        if name in self._promises:
            return self._promises[name]
        known = held is not None or self._ledger.is_known_missing(name)
        head = f"Cannot fetch {self.address}/{name}"
        try:
            if self._open is None:
                raise Broken("HF_HUB_OFFLINE forbids the network")
            if known:  # one try: there is something else to go by
                found = self._opened().ask(name)
            else:
                found = retrying(lambda: self._opened().ask(name), f"{self.address}/{name}")
        except CannotFetch as error:
            raise DownloadError(f"{head}: {error}.") from error
        except Broken as error:
            if not known:
                raise DownloadError(f"{head}: {_out_of_reach(error, self._open is None)}.") from error
            if self._open is not None and not self._unasked:
                _log.warning("%s/%s: %s; using the cache", self.address, name, error)
            found, self._unasked = _UNKNOWN, True
        self._promises[name] = found
        return found

    def _opened(self) -> Store:
        assert self._open is not None
        if self._store is None:
            self._store = self._open()
        return self._store

    def _path(self, name: str) -> Path:
        return self.folder.joinpath(*name.split("/"))


def _is_newest(held: Kept, promise: Promise) -> bool:
    return (held.size, held.version) == (promise.size, promise.version)


def _difference(part: Path, found: str, promise: Promise, sha256: str) -> str:
    """In words what is wrong with the bytes of `part`, whose sha256 is `found`; "" where nothing is."""
    if sha256 and found != sha256:
        return f"the sha256 {found} instead of the manifest's {sha256}"
    if promise.md5:
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if digest != promise.md5:
            return f"the md5 {digest} instead of the store's {promise.md5}"
    return ""


def _out_of_reach(error: Broken, offline: bool) -> str:
    if offline:
        return "it is not in the cache and HF_HUB_OFFLINE forbids the network; fetch it once with the network on"
    return f"it is not in the cache, and {error}; check the network, or try later"
