"""Fetching one file from the Hub into huggingface_hub's cache, and never using it unless its bytes are right.

The Hub names a large file by its sha256 and a small one by its git hash, and the client's cache keeps that name; the
client itself compares sizes only. A file whose hash differs is thrown away and fetched once more. What this room leaves
out: what is in the file.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

from clip_core.errors import ClipError

__all__ = ["DownloadError", "NotInRepository", "fetch"]

_log = logging.getLogger(__name__)
_HASH = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")


class DownloadError(ClipError):
    """A file could not be had from the Hub or its cache; names repository, file, revision, cause and cure."""


class NotInRepository(DownloadError):
    """The repository is there and has no file of that name."""


def fetch(
    repo: str,
    files: Sequence[str],
    *,
    revision: str = "main",
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> Path:
    """The local path of the first of `files` that `repo` has, downloaded unless the cache holds it, and verified.

    `HF_HUB_OFFLINE`, `HF_ENDPOINT`, `HF_HOME` and `HF_TOKEN` are honoured by huggingface_hub.

    Raises:
        NotInRepository: it has none of them.
        DownloadError: not found, no access, no network, a full disk, or bytes that differ from what the Hub promised.
    """
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for name in files:
        try:
            path = _download(repo, name, revision, cache_dir, token)
        except LocalEntryNotFoundError as error:
            # The Hub is out of reach and this name is not in the cache, which may remember that there is none.
            if _known_missing(repo, name, revision, cache_dir):
                continue
            cached = [found for other in files if (found := _cached(repo, other, revision, cache_dir))]
            if not cached:
                raise _explained(error, repo, name, revision) from error
            path = cached[0]
        except EntryNotFoundError:
            continue
        except Exception as error:
            raise _explained(error, repo, name, revision) from error
        if _intact(path, repo, name, revision, token):
            return path
        _log.warning("%s of %s is damaged in the cache (its hash differs); fetching it again", name, repo)
        _discard(path)
        try:
            path = _download(repo, name, revision, cache_dir, token)
        except Exception as error:
            raise _explained(error, repo, name, revision) from error
        if _intact(path, repo, name, revision, token):
            return path
        _discard(path)
        raise DownloadError(
            f"{name} of {repo} at {revision} arrived with a wrong hash twice and was thrown away. "
            "A proxy or a mirror (HF_ENDPOINT) may be changing it; try another one."
        )
    raise NotInRepository(f"{repo} at {revision} has none of {', '.join(files)}. Look at what the repository holds.")


def _download(
    repo: str, name: str, revision: str, cache_dir: str | os.PathLike[str] | None, token: str | bool | None
) -> Path:
    from huggingface_hub import hf_hub_download

    cache = os.fspath(cache_dir) if cache_dir is not None else None
    return Path(hf_hub_download(repo, name, revision=revision, cache_dir=cache, token=token, library_name="clip-hub"))


def _cached(repo: str, name: str, revision: str, cache_dir: str | os.PathLike[str] | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    cache = os.fspath(cache_dir) if cache_dir is not None else None
    found = try_to_load_from_cache(repo, name, cache_dir=cache, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _known_missing(repo: str, name: str, revision: str, cache_dir: str | os.PathLike[str] | None) -> bool:
    """Whether the Hub has said before that this revision has no such file."""
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

    cache = os.fspath(cache_dir) if cache_dir is not None else None
    return try_to_load_from_cache(repo, name, cache_dir=cache, revision=revision) is _CACHED_NO_EXIST


def _intact(path: Path, repo: str, name: str, revision: str, token: str | bool | None) -> bool:
    """Whether the bytes are those that the Hub promised under this name."""
    promised = path.resolve().name
    if not _HASH.fullmatch(promised):
        # A cache on a file system without links does not keep the hash as a name; then the Hub has to be asked.
        promised = _ask_hash(repo, name, revision, token)
    if not _HASH.fullmatch(promised):
        _log.warning("%s of %s cannot be checked: its hash is not in the cache and the Hub was not asked", name, repo)
        return True
    # Large files are named by the sha256 of their bytes, small ones by their hash as a git object.
    digest = hashlib.sha256() if len(promised) == 64 else hashlib.sha1(usedforsecurity=False)
    if digest.name == "sha1":
        digest.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest() == promised


def _ask_hash(repo: str, name: str, revision: str, token: str | bool | None) -> str:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    try:
        found = get_hf_file_metadata(hf_hub_url(repo, name, revision=revision), token=token).etag
    except Exception:
        return ""  # offline, or a Hub that does not answer: the caller says that nothing was checked
    return found or ""


def _discard(path: Path) -> None:
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _explained(error: Exception, repo: str, name: str, revision: str) -> DownloadError:
    from huggingface_hub import errors

    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    if isinstance(error, errors.GatedRepoError):
        cause = "access is gated; accept its terms on the Hub and log in with `hf auth login`"
    elif isinstance(error, errors.RepositoryNotFoundError):
        cause = "there is no such repository, or it is private; check the name, or log in with `hf auth login`"
    elif isinstance(error, errors.RevisionNotFoundError):
        cause = "there is no such revision"
    elif isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        cause = "there is no such file"
    elif isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        cause = (
            "it is not in the cache and HF_HUB_OFFLINE forbids the network; fetch it once with the network on"
            if offline
            else "it is not in the cache and the Hub is out of reach; check the network, or set HF_ENDPOINT to a mirror"
        )
    elif isinstance(error, OSError) and error.errno == 28:
        cause = "the disk is full; free some space or pass another cache_dir"
    else:
        cause = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
    return DownloadError(f"Cannot fetch {name} of {repo} at {revision}: {cause}.")
