"""Weights by their address and sha256: "https://host/weights.pt#sha256=..." as a file that has exactly these bytes.

The hash is required: an address alone may serve other bytes tomorrow. What arrived of a file that was cut short is kept
and continued. What this room leaves out: repositories of the Hub, which state their hashes themselves.
"""

from __future__ import annotations

import http.client
import logging
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from clip_core.convert.reading import FILE_SUFFIXES
from clip_core.errors import ConfigError
from clip_hub.download import DownloadError
from clip_hub.hashes import sha256_of
from clip_hub.retrying import RETRIED, Broken, retry_after, retrying
from clip_hub.transfer import is_full_disk

__all__ = ["fetch_address", "is_address"]

_log = logging.getLogger(__name__)
_BLOCK = 1 << 20
_TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as broken."""


def is_address(text: object) -> bool:
    """Whether `text` is an address of the web rather than a path or a tag."""
    return isinstance(text, str) and text.startswith(("https://", "http://"))


def fetch_address(address: str, *, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The local path of the file at `address`, downloaded unless the cache has it, and verified.

    Args:
        address: "https://..." with "#sha256=" and the 64 digits of the file's hash behind it.
        cache_dir: where it is kept, in a folder called by its hash; default "clip-hub" in huggingface_hub's `HF_HOME`.

    Raises:
        ConfigError: no hash, or a name that weights do not have.
        DownloadError: not found, no network, a full disk, or other bytes than the hash says.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # it is there, and not listed

    place, _, fragment = address.partition("#")
    stated = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    name = Path(urllib.parse.unquote(urllib.parse.urlsplit(place).path)).name
    if stated is None:
        raise ConfigError(
            f"{address!r} has no hash; write {place}#sha256= and the 64 digits that `sha256sum` prints for the file."
        )
    if not name.endswith(FILE_SUFFIXES):
        raise ConfigError(f"{place!r} is no file of weights; allowed: names that end with {', '.join(FILE_SUFFIXES)}.")
    digest = stated[1].lower()
    home = Path(cache_dir) if cache_dir is not None else Path(constants.HF_HOME) / "clip-hub"
    target = home / digest / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(target.parent / ".lock"):  # a second process waits, and finds the file
            if target.is_file():
                if sha256_of(target) == digest:
                    return target
                _log.warning("%s is damaged in the cache (its hash differs); fetching it again", target)
                target.unlink()
            if constants.HF_HUB_OFFLINE:
                raise DownloadError(
                    f"Cannot fetch {place}: it is not in the cache and HF_HUB_OFFLINE forbids the network; fetch it "
                    "once with the network on."
                )
            _download(place, target, digest)
    except OSError as error:
        cause = "the disk is full; free some space" if is_full_disk(error) else f"{error}; change that"
        raise DownloadError(f"Cannot keep {place} in {target.parent}: {cause}, or pass another cache_dir.") from error
    return target


def _download(place: str, target: Path, digest: str) -> None:
    part = target.with_name(f"{target.name}.part")
    try:
        retrying(lambda: _receive(place, part), place)
    except Broken as error:
        raise DownloadError(f"Cannot fetch {place}: {error}. What arrived is kept; try again later.") from error
    found = sha256_of(part)
    if found != digest:
        part.unlink()
        raise DownloadError(
            f"{place} has the sha256 {found} and not {digest}, and was thrown away. Compare the hash with the one that "
            "its author states."
        )
    os.replace(part, target)


def _receive(place: str, part: Path) -> None:
    """Append what is missing of `place` to `part`."""
    held = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(place, headers={"User-Agent": "clip-hub", "Range": f"bytes={held}-"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            whole = answer.status != 206
            expected = answer.headers.get("Content-Length")
            received = 0
            with part.open("wb" if whole else "ab") as stream:
                while block := answer.read(_BLOCK):
                    stream.write(block)
                    received += len(block)
    except urllib.error.HTTPError as error:
        if error.code == 416 and held:  # nothing is missing, or the file has become shorter: its hash will tell
            return
        if error.code in RETRIED:
            after = retry_after(dict(error.headers.items()))
            raise Broken(f"the server answered {error.code} ({error.reason})", after) from error
        raise DownloadError(f"Cannot fetch {place}: the server answered {error.code} ({error.reason}).") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise Broken(f"the connection broke ({getattr(error, 'reason', error) or type(error).__name__})") from error
    if expected is not None and received != int(expected):
        raise Broken(f"the body was cut after {received} of {expected} bytes")
