"""Which files a repository of the Hub holds, with their sizes and hashes, before any of them is fetched.

A commit's list never changes, so the cache keeps it: a known commit costs no question, and a branch is read from the
cache where the Hub is out of reach. What this room leaves out: the files themselves, which `download` fetches.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass

from clip_core.errors import ConfigError
from clip_hub.__about__ import __version__
from clip_hub.cache import RepositoryCache, RepositoryType, is_commit
from clip_hub.download import DownloadError
from clip_hub.retrying import Broken, retrying
from clip_hub.transfer import SHORT, CannotFetch, Token, explained, is_offline

__all__ = ["RepositoryContents", "RepositoryFile", "repository_files"]

_log = logging.getLogger(__name__)
_Rows = list[tuple[str, int, str]]
"""Path, size and hash of each file."""


@dataclass(frozen=True)
class RepositoryFile:
    """One file of a commit."""

    path: str
    """In the repository, with "/"; a stranger chose it, so let `fetch` refuse what leads out of the folder."""
    size: int
    """Bytes."""
    hash: str
    """The sha256 of a large file (64 digits), git's hash of a small one (40)."""
    cached: bool
    """Whether the cache holds it; `fetch` still verifies it before it is used."""


@dataclass(frozen=True)
class RepositoryContents:
    """All files of one commit; ask `fetch` for them with `revision=commit`, so that they fit each other."""

    repo: str
    repo_type: RepositoryType
    commit: str
    files: tuple[RepositoryFile, ...]


def repository_files(
    repo: str,
    *,
    revision: str = "main",
    repo_type: RepositoryType = "model",
    cache_dir: str | os.PathLike[str] | None = None,
    token: Token = None,
) -> RepositoryContents:
    """What `repo` holds at `revision`, sorted by path; no file is fetched.

    Args:
        repo: "org/name".
        revision: a branch, a tag, "refs/pr/1" or a commit.
        repo_type: "model", or "dataset" for the repository of a data set.
        cache_dir: default huggingface_hub's.
        token: default the one of `hf auth login`; False for none.

    Raises:
        DownloadError: not found, no access, or no network and no list of it in the cache.
    """
    head = f"Cannot list the files of {'the data set ' if repo_type == 'dataset' else ''}{repo} at {revision}"
    try:
        cache = RepositoryCache.of(repo, cache_dir, repo_type)
        commit, rows = _newest(cache, revision, token)
    except CannotFetch as error:
        raise DownloadError(f"{head}: {error}.") from error
    except Broken as error:
        cure = (
            "list them once with the network on"
            if is_offline()
            else "check the network, try later, or set HF_ENDPOINT to a mirror"
        )
        raise DownloadError(f"{head}: the cache has no list of them, and {error}; {cure}.") from error
    except ValueError as error:  # a name that no repository or revision can have
        raise DownloadError(f"{head}: {error}") from error
    files = tuple(RepositoryFile(path, size, digest, _is_cached(cache, path, commit)) for path, size, digest in rows)
    return RepositoryContents(repo, repo_type, commit, files)


def _newest(cache: RepositoryCache, revision: str, token: Token) -> tuple[str, _Rows]:
    """The commit that `revision` means and what it holds: the Hub's word, or where it is silent the last known."""
    held = _kept(cache, cache.commit(revision))
    if held is not None and is_commit(revision):
        return revision, held
    what = f"the files of {cache.repo}"
    try:
        if is_offline():
            raise Broken("HF_HUB_OFFLINE forbids the network")

        def once() -> str:
            return _ask_commit(cache, revision, token, short=held is not None)

        commit = once() if held is not None else retrying(once, what)
        rows = _kept(cache, commit)
        if rows is None:
            rows = _ask_files(cache, commit, token)
            cache.remember_contents(commit, json.dumps(rows))
    except Broken as error:
        if held is None:
            raise
        if not is_offline():
            _log.warning("%s: %s; using the list in the cache", what, error)
        return cache.commit(revision), held
    cache.remember(revision, commit)
    return commit, rows


def _ask_commit(cache: RepositoryCache, revision: str, token: Token, *, short: bool) -> str:
    from huggingface_hub import HfApi, constants

    timeout = min(SHORT, constants.HF_HUB_ETAG_TIMEOUT) if short else constants.HF_HUB_ETAG_TIMEOUT
    try:
        found = HfApi(token=token, library_name="clip-hub", library_version=__version__).repo_info(
            cache.repo, repo_type=cache.type, revision=revision, timeout=timeout
        )
    except Exception as error:
        raise explained(error) from error
    if found.sha is None:
        raise CannotFetch("the answer names no commit, so it is not from a Hub; check HF_ENDPOINT and the proxy")
    return found.sha


def _ask_files(cache: RepositoryCache, commit: str, token: Token) -> _Rows:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    try:
        found = list(
            HfApi(token=token, library_name="clip-hub", library_version=__version__).list_repo_tree(
                cache.repo, repo_type=cache.type, revision=commit, recursive=True
            )
        )
    except Exception as error:
        told = explained(error)
        if isinstance(told, Broken):  # the client has a policy of its own here, and follows it
            raise CannotFetch(f"{told}; the client has tried it again several times. Try later") from error
        raise told from error
    files = [each for each in found if isinstance(each, RepoFile)]
    return sorted((each.path, each.size, each.lfs.sha256 if each.lfs else each.blob_id) for each in files)


def _kept(cache: RepositoryCache, commit: str) -> _Rows | None:
    try:
        return [(str(path), int(size), str(digest)) for path, size, digest in json.loads(cache.contents(commit) or "")]
    except (TypeError, ValueError):
        return None


def _is_cached(cache: RepositoryCache, path: str, commit: str) -> bool:
    try:
        return cache.find(path, commit) is not None
    except ConfigError:  # it leads out of the folder
        return False
