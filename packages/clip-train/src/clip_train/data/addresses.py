"""The shards that `--train-data` names, in parts. What this room leaves out: opening any of them."""

from __future__ import annotations

import glob
import urllib.parse
import urllib.request
from pathlib import Path

from braceexpand import braceexpand

from clip_core.errors import ConfigError, DataError

__all__ = ["expand_parts", "expand_shards", "is_remote", "parse_factors"]


def expand_shards(pattern: str) -> list[str]:
    """The addresses that `pattern` names, those of all parts; see `expand_parts`."""
    return [address for part in expand_parts(pattern) for address in part]


def expand_parts(pattern: str) -> list[list[str]]:
    """The addresses of each part of `pattern`.

    "::" stands between parts, braces ("{00000..00041}") for several addresses, "*" for local files that exist. A part
    that begins with "pipe:" is a shell command for each shard. Raises `DataError` for a pattern that cannot be read or
    matches nothing, and for a shard that is named twice.
    """
    parts = [addresses for part in pattern.split("::") if (addresses := _expand(part.strip()))]
    if not parts:
        raise DataError(f"The pattern {pattern!r} names no shard.")
    seen: set[str] = set()
    for address in (address for part in parts for address in part):
        if address in seen:
            raise DataError(
                f"{address}: named twice by {pattern!r}; every shard is read once per pass. "
                "--train-data-upsampling-factors repeats the samples of a part."
            )
        seen.add(address)
    return parts


def is_remote(address: str) -> bool:
    """Whether a shard has to be fetched before it can be read."""
    return address.startswith("pipe:") or "://" in address


def parse_factors(text: str | None, parts: int) -> tuple[float, ...]:
    """open_clip's "1::2::0.5", a factor for each of so many parts; all 1 where none are given.

    Raises `ConfigError` for what is no number above 0, and for another number of factors than of parts.
    """
    if text is None:
        return (1.0,) * parts
    try:
        factors = tuple(float(word) for word in text.split("::"))
    except ValueError:
        factors = (0.0,)
    if not all(0 < factor < float("inf") for factor in factors):
        raise ConfigError(
            f"--train-data-upsampling-factors is {text!r}; allowed: numbers above 0 with '::' between them."
        )
    if len(factors) != parts:
        raise ConfigError(
            f"--train-data-upsampling-factors has {len(factors)} factors for {parts} parts of --train-data; give one "
            "for each part between '::'."
        )
    return factors


def _expand(part: str) -> list[str]:
    if not part:
        return []
    try:
        # A backslash separates folders on Windows, and belongs to the shell in a command: it escapes nothing.
        expanded = [address for address in braceexpand(part, escape=False) if address]
    except ValueError as error:
        raise DataError(f"{part!r} is not a pattern of shards: {error}.") from error
    addresses: list[str] = []
    for address in expanded:
        if address.startswith("file://"):
            address = urllib.request.url2pathname(urllib.parse.urlsplit(address).path)
        if is_remote(address) or not glob.has_magic(address) or Path(address).exists():
            addresses.append(address)
            continue
        found = sorted(glob.glob(address))
        if not found:
            raise DataError(f"{address}: no file matches this pattern. Check the path.")
        addresses.extend(found)
    return addresses
