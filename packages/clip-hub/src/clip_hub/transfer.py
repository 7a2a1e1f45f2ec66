"""What huggingface_hub's client is asked: what the Hub promises about a file, and its bytes, from where they stopped.

Its exceptions become `Broken` where another try may help, and `CannotFetch`, `Missing` or `Unreachable` otherwise. What
this room leaves out: the cache, and whether the bytes are right.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from clip_hub.__about__ import __version__
from clip_hub.retrying import RETRIED, Broken, retry_after

__all__ = [
    "SHORT",
    "CannotFetch",
    "Missing",
    "Promise",
    "Token",
    "ask",
    "explained",
    "fetch_by_xet",
    "is_full_disk",
    "is_offline",
    "receive",
]

Token = str | bool | None
SHORT = 3.0
"""Seconds that the Hub gets to answer where the cache has an answer, too."""


class CannotFetch(Exception):
    """The cause, and what to do about it, in words; another try would not help."""


class Missing(Exception):
    """The repository has no such file at this commit ("" where the Hub did not say which)."""

    def __init__(self, commit: str) -> None:
        super().__init__(commit)
        self.commit = commit


@dataclass(frozen=True)
class Promise:
    """What the Hub says about a file before it is fetched."""

    url: str
    etag: str
    commit: str
    size: int | None
    xet: bool
    """Whether the client fetches it in its own way, by chunks that it verifies."""


def ask(
    repo: str, name: str, revision: str, token: Token, repo_type: str = "model", timeout: float | None = None
) -> Promise:
    """What the Hub promises about a file now; `timeout` is in seconds, default and longest `HF_HUB_ETAG_TIMEOUT`.

    Raises:
        Missing: there is no such file.
        CannotFetch: no such repository or revision, or no access.
        Broken: the Hub is out of reach or has trouble.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    try:
        address = hf_hub_url(repo, name, revision=revision, repo_type=repo_type)
        longest = constants.HF_HUB_ETAG_TIMEOUT
        found = get_hf_file_metadata(
            address,
            token=token,
            timeout=longest if timeout is None else min(timeout, longest),
            library_name="clip-hub",
            library_version=__version__,
        )
    except Exception as error:
        raise explained(error) from error
    if found.commit_hash is None or found.etag is None:
        raise CannotFetch(
            "the answer names no commit or no hash, so it is not from a Hub; check HF_ENDPOINT, the proxy and the "
            "firewall"
        )
    usable = not constants.HF_HUB_DISABLE_XET and importlib.util.find_spec("hf_xet") is not None
    xet = found.xet_file_data is not None and usable
    return Promise(found.location, found.etag, found.commit_hash, found.size, xet)


def receive(repo: str, name: str, promise: Promise, part: Path, token: Token) -> None:
    """Append to `part` what is missing of the promised file.

    Raises:
        CannotFetch: no access.
        Broken: the connection broke, or the size is not the promised one; what arrived is kept.
        OSError: the file cannot be written.
    """
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # it is there, and not listed

    headers = build_hf_headers(token=token, library_name="clip-hub", library_version=__version__)
    own = urllib.parse.urlsplit(hf_hub_url(repo, name)).netloc
    if urllib.parse.urlsplit(promise.url).netloc not in (own, urllib.parse.urlsplit(constants.ENDPOINT).netloc):
        headers.pop("authorization", None)  # the address is the permission, and the token is none of its business
    held = part.stat().st_size if part.is_file() else 0
    if promise.size is not None and held > promise.size:
        part.unlink()
        held = 0
    with part.open("ab") as stream:
        try:
            http_get(
                promise.url,
                stream,
                resume_size=held,
                headers=headers,
                expected_size=promise.size,
                displayed_filename=name,
            )
        except Exception as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status == 416:
                stream.truncate(0)
                raise Broken("less was there than has arrived already") from error
            if status == 403:
                raise Broken("the address has expired") from error
            if isinstance(error, OSError) and error.errno is None and status is None and _is_size(error):
                raise Broken(f"{stream.tell()} of {promise.size} bytes arrived") from error
            if isinstance(error, OSError) and status is None and error.errno is not None:
                raise
            told = explained(error)
            if type(error).__name__ == "ChunkedEncodingError":
                raise told from error  # a body that was cut, which clients before 1.0 do not try again
            if isinstance(told, Broken) and status in (None, 408, 429):
                raise CannotFetch(f"{told}; the client has tried it again several times. Try later") from error
            raise told from error
        stream.flush()
        os.fsync(stream.fileno())


def fetch_by_xet(repo: str, name: str, commit: str, root: Path, token: Token, repo_type: str = "model") -> Path:
    """The path in the cache of a file that the client fetches by chunks.

    Raises:
        CannotFetch, Broken, Missing: as `ask`.
        OSError: the file cannot be written.
    """
    from huggingface_hub import hf_hub_download

    try:
        path = hf_hub_download(
            repo,
            name,
            repo_type=repo_type,
            revision=commit,
            cache_dir=root,
            token=token,
            library_name="clip-hub",
        )
        return Path(path)
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise explained(error) from error


def is_offline() -> bool:
    """Whether `HF_HUB_OFFLINE` forbids the network."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def is_full_disk(error: OSError) -> bool:
    """Whether there is no room: on the disk, in the quota, or in what a process may write."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _is_size(error: OSError) -> bool:
    return "Consistency check failed" in str(error)


def explained(error: Exception) -> Exception:
    """The client's exception as one of ours."""
    from huggingface_hub import errors

    answer = getattr(error, "response", None)
    status = getattr(answer, "status_code", None)
    login = "log in with `hf auth login`, or pass a token"
    if isinstance(error, errors.GatedRepoError):
        return CannotFetch(f"access is gated; accept its terms on the Hub and {login}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return CannotFetch(f"there is no such repository, or it is private; check the name, or {login}")
    if isinstance(error, errors.RevisionNotFoundError):
        return CannotFetch("there is no such revision; look at the branches and tags on the Hub")
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        return Broken("the Hub is out of reach")
    if isinstance(error, errors.EntryNotFoundError):
        return Missing(answer.headers.get("X-Repo-Commit", "") if answer is not None else "")
    if status in RETRIED:
        wanted = "it asks to wait" if status == 429 else "it has trouble"
        return Broken(
            f"the Hub answered {status} ({wanted})", retry_after(answer.headers if answer is not None else {})
        )
    if status == 401:
        return CannotFetch(f"the Hub does not know the token (401); {login}")
    if status == 403:
        return CannotFetch("this token, or nobody, may read it (403); ask its owner for access")
    if status is not None:
        return CannotFetch(f"the Hub answered {status}; try later, or another HF_ENDPOINT")
    if isinstance(error, errors.HFValidationError):
        return CannotFetch(f"{_first_line(error)}; write org/name")
    # Of requests, httpx or httpx2, as the version of the client has it: no connection, a broken one, no answer in time.
    if isinstance(error, OSError) or type(error).__module__.split(".")[0] in (
        "requests",
        "httpx",
        "httpx2",
        "httpcore",
    ):
        return Broken(f"no connection that holds ({type(error).__name__}: {_first_line(error)})")
    return error


def _first_line(error: Exception) -> str:
    with contextlib.suppress(IndexError):
        return str(error).strip().splitlines()[0].rstrip(".")
    return "no reason given"
