"""Fetching one file from the Hub into huggingface_hub's cache, and never using it unless its bytes are right.

The Hub names a large file by its sha256 and a small one by its git hash, and the cache keeps that name; the client
itself compares sizes only. Bytes are hashed once, before they get their place in the cache, and again where somebody
has touched them; those that differ are thrown away and fetched once more. A download that was cut or killed goes on
where it stopped. What this room leaves out: what is in the file.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from clip_core.errors import ClipError
from clip_hub.cache import RepositoryCache, RepositoryType, is_commit, is_hash
from clip_hub.partial import partial
from clip_hub.retrying import Broken, retrying
from clip_hub.transfer import (
    SHORT,
    CannotFetch,
    Missing,
    Promise,
    Token,
    ask,
    fetch_by_xet,
    is_full_disk,
    is_offline,
    receive,
)

__all__ = ["DownloadError", "NotInRepository", "fetch"]

_log = logging.getLogger(__name__)


class DownloadError(ClipError):
    """A file could not be had from the Hub or its cache; names repository, file, revision, cause and cure."""


class NotInRepository(DownloadError):
    """The repository is there and has no file of that name, at `commit` ("" where the Hub did not say which)."""

    def __init__(self, message: str, commit: str = "") -> None:
        super().__init__(message)
        self.commit = commit


def fetch(
    repo: str,
    files: Sequence[str],
    *,
    revision: str = "main",
    repo_type: RepositoryType = "model",
    cache_dir: str | os.PathLike[str] | None = None,
    token: Token = None,
    recheck: bool = False,
) -> Path:
    """The local path of the first of `files` that `repo` has, downloaded unless the cache holds it, and verified.

    Where the cache has the answer, a Hub that is out of reach is asked once and not waited for. `HF_HUB_OFFLINE`,
    `HF_ENDPOINT`, `HF_HOME` and `HF_TOKEN` are honoured as huggingface_hub reads them.

    Args:
        repo: "org/name".
        files: names in the order of preference.
        revision: a branch, a tag, "refs/pr/1" or a commit.
        repo_type: "model", or "dataset" for the repository of a data set.
        cache_dir: default huggingface_hub's.
        token: default the one of `hf auth login`; False for none.
        recheck: hash a file of the cache although it was found right before and has not been touched since.

    Raises:
        NotInRepository: it has none of them.
        DownloadError: not found, no access, no network, a full disk, or bytes that differ from what the Hub promised.
    """
    at = revision
    for name in files:
        head = _head(repo, name, revision, repo_type)
        try:
            cache = RepositoryCache.of(repo, cache_dir, repo_type)
            return _File(cache, name, at, token, recheck, patient=not _is_answered(cache, files, at)).path()
        except Missing as error:
            at = error.commit or at  # so that the names are those of one commit, and what is known is not asked again
            continue
        except Broken as error:
            if cache.known_missing(name, at):
                if not is_offline():
                    _log.warning("%s of %s: %s; using the cache", name, repo, error)
                at = cache.commit(at)
                continue
            # The Hub is out of reach; another of the names that is here is better than nothing.
            other = next((other for other in files if other != name and cache.find(other, at)), None)
            if other is None:
                raise DownloadError(f"{head}: {_out_of_reach(error)}.") from error
            commit = cache.commit(at)
            return fetch(
                repo, [other], revision=commit, repo_type=repo_type, cache_dir=cache_dir, token=token, recheck=recheck
            )
        except CannotFetch as error:
            raise DownloadError(f"{head}: {error}.") from error
        except OSError as error:
            cause = (
                "the disk is full; free some space, or pass another cache_dir. What arrived is kept"
                if is_full_disk(error)
                else f"the cache {cache.root} cannot be used ({error}); change that, or pass another cache_dir"
            )
            raise DownloadError(f"{head}: {cause}.") from error
        except ValueError as error:  # a name that no repository, file or revision can have
            raise DownloadError(f"{head}: {error}") from error
    raise NotInRepository(
        f"{repo} at {revision} has none of {', '.join(files)}. Look at what the repository holds.",
        at if is_commit(at) else "",
    )


def _is_answered(cache: RepositoryCache, files: Sequence[str], revision: str) -> bool:
    """Whether the cache can say what the first of `files` is without the Hub."""
    held = any(cache.find(name, revision) for name in files)
    return held or all(cache.known_missing(name, revision) for name in files)


class _File:
    """One file at one revision, and how it comes into the cache."""

    def __init__(
        self, cache: RepositoryCache, name: str, revision: str, token: Token, recheck: bool, *, patient: bool
    ) -> None:
        self._cache, self._name, self._revision, self._token = cache, name, revision, token
        self._recheck, self._patient = recheck, patient
        self._repo = cache.repo

    def path(self) -> Path:
        """Where it is, verified.

        Raises:
            Missing, CannotFetch, Broken, OSError: as `transfer`.
            DownloadError: wrong bytes twice.
        """
        held = self._cache.find(self._name, self._revision)
        if is_commit(self._revision):  # nothing about it changes, so there is nothing to ask
            if held is not None and self._is_sound(held):
                return held
            if held is None and self._cache.known_missing(self._name, self._revision):
                raise Missing(self._revision)
        try:
            promise = self._ask()
        except Broken as error:
            if held is None:
                raise
            if not is_offline():
                _log.warning("%s of %s: %s; using the cache", self._name, self._repo, error)
            if not self._is_sound(held):
                raise Broken(f"what is in the cache is damaged (its hash differs), and {error}") from error
            return held
        path = self._obtained(promise)
        self._cache.remember(self._revision, promise.commit)
        return path

    def _ask(self) -> Promise:
        """What the Hub promises; asked once and shortly where the cache has something to go by."""
        if is_offline():
            raise Broken("HF_HUB_OFFLINE forbids the network")
        try:
            if not self._patient:
                return self._promise(timeout=SHORT)
            return retrying(self._promise, f"{self._name} of {self._repo}")
        except Missing as error:
            if error.commit:
                self._cache.remember_missing(error.commit, self._name)
                self._cache.remember(self._revision, error.commit)
            raise

    def _promise(self, revision: str = "", timeout: float | None = None) -> Promise:
        return ask(self._repo, self._name, revision or self._revision, self._token, self._cache.type, timeout)

    def _obtained(self, promise: Promise) -> Path:
        cache = self._cache
        held = cache.find(self._name, promise.commit)
        if held is not None and self._is_sound(held, promise.etag):
            return held
        if promise.xet:
            return self._by_xet(promise)
        with cache.lock(promise.etag):
            # Another process may have fetched it meanwhile; and only who has the lock throws anything away.
            held = cache.find(self._name, promise.commit)
            if held is not None:
                if self._is_sound(held, promise.etag):
                    return held
                self._discard(held)
            blob = cache.blob(promise.etag)
            if blob.is_file() and not self._is_sound(blob, promise.etag):
                self._discard(blob)
            if not blob.is_file():
                blob.parent.mkdir(parents=True, exist_ok=True)
                self._fill(blob, promise)
            return cache.link(promise.commit, self._name, blob)

    def _fill(self, blob: Path, promise: Promise) -> None:
        with partial(blob) as part:
            wrong = 0
            while True:
                continued = part.is_file() and part.stat().st_size > 0
                self._receive(part, promise)
                if not is_hash(promise.etag):
                    _log.warning("%s of %s cannot be checked: the Hub states no hash of it", self._name, self._repo)
                    break
                if self._cache.is_sound(part, promise.etag):
                    break
                part.unlink()
                wrong += not continued  # what lay there from before may have been at fault
                if wrong == 2:
                    raise self._wrong_twice()
                _log.warning("%s of %s arrived with a wrong hash; fetching it again", self._name, self._repo)
            os.replace(part, blob)
        if is_hash(promise.etag):
            self._cache.mark(blob, promise.etag)

    def _receive(self, part: Path, promise: Promise) -> None:
        tried = False

        def once() -> None:
            nonlocal tried
            # The address of a large file is good for an hour or so.
            current = self._promise(promise.commit) if tried else promise
            tried = True
            receive(self._repo, self._name, current, part, self._token)

        try:
            retrying(once, f"{self._name} of {self._repo}")
        except Broken as error:
            raise CannotFetch(f"{error}. What arrived is kept; try again later") from error

    def _by_xet(self, promise: Promise) -> Path:
        for _ in range(2):
            path = retrying(
                lambda: fetch_by_xet(
                    self._repo, self._name, promise.commit, self._cache.root, self._token, self._cache.type
                ),
                f"{self._name} of {self._repo}",
            )
            if self._is_sound(path, promise.etag):
                return path
            with self._cache.lock(promise.etag):
                self._discard(path)
        raise self._wrong_twice()

    def _is_sound(self, path: Path, digest: str = "") -> bool:
        """Whether the bytes are those that the Hub promised."""
        if not self._recheck and self._cache.is_marked(path):
            return True
        digest = digest or self._cache.promised(path)
        if not digest and not is_offline():
            # A cache without links does not keep the hash as a name.
            try:
                digest = self._promise().etag
            except (Missing, CannotFetch, Broken):
                digest = ""
        if not is_hash(digest):
            _log.warning(
                "%s of %s cannot be checked: its hash is not in the cache and the Hub does not say it",
                self._name,
                self._repo,
            )
            return True
        if self._cache.is_sound(path, digest):
            self._cache.mark(path, digest)
            return True
        return False

    def _discard(self, path: Path) -> None:
        _log.warning("%s of %s is damaged in the cache (its hash differs); fetching it again", self._name, self._repo)
        self._cache.discard(path)

    def _wrong_twice(self) -> DownloadError:
        return DownloadError(
            f"{_head(self._repo, self._name, self._revision, self._cache.type)}: it arrived with a wrong hash twice "
            "and was thrown away. A proxy or a mirror (HF_ENDPOINT) may be changing it; try another one."
        )


def _head(repo: str, name: str, revision: str, repo_type: str) -> str:
    return f"Cannot fetch {name} of {'the data set ' if repo_type == 'dataset' else ''}{repo} at {revision}"


def _out_of_reach(error: Broken) -> str:
    if "damaged" in str(error):
        return f"{error}; fetch it again with the network on"
    if is_offline():
        return "it is not in the cache and HF_HUB_OFFLINE forbids the network; fetch it once with the network on"
    cure = "check the network, try later, or set HF_ENDPOINT to a mirror"
    return f"it is not in the cache, and {error}; {cure}"
