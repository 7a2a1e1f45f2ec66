"""What a web server, or whatever fsspec reads, promises about a file, and its bytes from a place on.

Web servers are asked with the standard library, so that a plain https address needs nothing more installed, and so that
a download goes on only if the file is still the same. What this room leaves out: keeping the bytes (`mirror`).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from clip_hub.retrying import RETRIED, Broken, retry_after
from clip_hub.transfer import CannotFetch

__all__ = ["Promise", "Store", "open_store"]

_BLOCK = 1 << 20
_TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as broken."""
_OF_A_VERSION = (
    "ETag",
    "etag",
    "md5Hash",
    "md5",
    "sha256",
    "mtime",
    "LastModified",
    "last_modified",
    "updated",
    "created",
)
"""What file systems of fsspec call that which changes with a file's bytes."""


@dataclass(frozen=True)
class Promise:
    """What a store says about a file before it is fetched."""

    size: int
    version: str
    """Changes when the bytes do; "" where the store says nothing of the kind."""
    md5: str = ""
    """32 digits; "" where the store does not say it."""


class Store(Protocol):
    """A folder somewhere else."""

    def ask(self, name: str) -> Promise | None:
        """What it promises about a file now; None where there is none of that name.

        Raises:
            Broken: another try may help.
            CannotFetch: none will.
        """

    def blocks(self, name: str, start: int, promise: Promise) -> Iterator[bytes]:
        """The bytes of a file from `start` on; raises as `ask`, between any two blocks."""


def open_store(url: str) -> Store:
    """The store that reads below `url`.

    Raises:
        CannotFetch: nothing that is installed reads such addresses.
    """
    return _Web(url) if url.startswith(("http://", "https://")) else _FileSystem(url)


class _Web:
    """A web server."""

    def __init__(self, url: str) -> None:
        self._parts = urllib.parse.urlsplit(url)

    def ask(self, name: str) -> Promise | None:
        try:
            with self._open(name, "HEAD") as answer:
                return _promised(answer.headers, answer.headers.get("Content-Length"))
        except urllib.error.HTTPError as error:
            if error.code in (404, 410):
                return None
            if error.code not in (400, 403, 405, 501):
                raise _told(error) from error
        # Some servers, and addresses that were signed for reading, answer to GET only.
        try:
            with self._open(name, "GET", Range="bytes=0-0") as answer:
                size = answer.headers.get("Content-Range", "").rpartition("/")[2]
                whole = answer.headers.get("Content-Length")
                return _promised(answer.headers, size if answer.status == 206 else whole)
        except urllib.error.HTTPError as error:
            if error.code in (404, 410):
                return None
            raise _told(error) from error

    def blocks(self, name: str, start: int, promise: Promise) -> Iterator[bytes]:
        asked = {"Range": f"bytes={start}-", "If-Range": promise.version} if start and promise.version else {}
        try:
            with self._open(name, "GET", **asked) as answer:
                if promise.version and _version(answer.headers) != promise.version:
                    raise CannotFetch("it has changed while it was fetched; fetch it again")
                skip = start if answer.status != 206 else 0
                while block := answer.read(_BLOCK):
                    yield block[skip:]
                    skip = max(0, skip - len(block))
        except urllib.error.HTTPError as error:
            raise _told(error) from error
        except (http.client.HTTPException, OSError) as error:
            raise Broken(f"the connection broke ({_reason(error)})") from error

    def _open(self, name: str, method: str, **headers: str) -> Any:
        path = f"{self._parts.path.rstrip('/')}/{urllib.parse.quote(name)}"
        url = urllib.parse.urlunsplit(self._parts._replace(path=path))
        named = {"User-Agent": "clip-eval", **{key.replace("_", "-"): value for key, value in headers.items()}}
        request = urllib.request.Request(url, headers=named, method=method)
        try:
            return urllib.request.urlopen(request, timeout=_TIMEOUT)
        except urllib.error.HTTPError as error:
            # It holds the connection open for a body that nobody reads.
            error.close()
            raise
        except (http.client.HTTPException, OSError) as error:
            raise Broken(f"no connection that holds ({_reason(error)})") from error


class _FileSystem:
    """Whatever fsspec reads: s3, gs, az, sftp, memory, zip inside of them."""

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            self._system, self._path = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:  # the message names the package to install, or the known protocols
            raise CannotFetch(f"nothing that is installed reads it ({_reason(error)})") from error
        except Exception as error:
            raise CannotFetch(f"{type(error).__name__}: {_reason(error)}") from error

    def ask(self, name: str) -> Promise | None:
        with _explained():
            try:
                self._system.invalidate_cache()  # it may have listed the folder long ago
                found = self._system.info(self._place(name))
            except (FileNotFoundError, NotADirectoryError):
                return None
        if found.get("type") == "directory":
            return None
        if found.get("size") is None:
            raise CannotFetch("the store does not say how large the file is, so nothing could tell that it is whole")
        named = {key: str(found[key]) for key in _OF_A_VERSION if found.get(key) is not None}
        return Promise(int(found["size"]), json.dumps(named, sort_keys=True) if named else "", _md5(found))

    def blocks(self, name: str, start: int, promise: Promise) -> Iterator[bytes]:
        try:
            with _explained(), self._system.open(self._place(name), "rb") as file:
                file.seek(start)
                left = promise.size - start
                while left > 0 and (block := file.read(min(_BLOCK, left))):
                    left -= len(block)
                    yield block
        except (FileNotFoundError, NotADirectoryError) as error:
            raise CannotFetch("it has gone while it was fetched") from error

    def _place(self, name: str) -> str:
        return f"{self._path.rstrip('/')}/{name}"


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """What a file system raises, as one of ours: its libraries have their own trees of exceptions."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, Broken, CannotFetch, GeneratorExit):
        raise
    except PermissionError as error:
        raise CannotFetch(f"no access ({_reason(error)}); check the credentials of the store") from error
    except (ImportError, NotImplementedError) as error:
        raise CannotFetch(_reason(error)) from error
    except Exception as error:
        raise Broken(f"the store has trouble ({type(error).__name__}: {_reason(error)})") from error


def _promised(headers: http.client.HTTPMessage, size: str | None) -> Promise:
    if size is None or not size.isdigit():
        raise CannotFetch("the server does not say how large the file is, so nothing could tell that it is whole")
    md5 = headers.get("Content-MD5", "")
    for each in ",".join(headers.get_all("x-goog-hash", [])).split(","):
        name, _, value = each.strip().partition("=")
        md5 = value if name == "md5" else md5
    return Promise(int(size), _version(headers), _digits(md5))


def _version(headers: http.client.HTTPMessage) -> str:
    etag: str = headers.get("ETag", "")
    # A weak one may stand for other bytes.
    return etag if etag and not etag.startswith("W/") else str(headers.get("Last-Modified", ""))


def _md5(found: Mapping[str, Any]) -> str:
    """The md5 where a file system says one under a name that means nothing else; an ETag may be something else."""
    return _digits(found.get("md5Hash") or found.get("content_md5") or found.get("md5") or "")


def _digits(md5: object) -> str:
    """32 digits of an md5 that is given so, in base64 or as bytes."""
    if isinstance(md5, (bytes, bytearray)):
        return bytes(md5).hex() if len(md5) == 16 else ""
    text = str(md5).strip().strip('"')
    if len(text) == 32:
        with contextlib.suppress(ValueError):
            return bytes.fromhex(text).hex()
    with contextlib.suppress(binascii.Error, ValueError):
        raw = base64.b64decode(text, validate=True)
        return raw.hex() if len(raw) == 16 else ""
    return ""


def _told(error: urllib.error.HTTPError) -> Broken | CannotFetch:
    if error.code in RETRIED:
        after = retry_after(dict(error.headers.items()))
        return Broken(f"the server answered {error.code} ({error.reason})", after)
    return CannotFetch(f"the server answered {error.code} ({error.reason})")


def _reason(error: BaseException) -> str:
    """The first line of what an exception says."""
    text = str(getattr(error, "reason", None) or error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
