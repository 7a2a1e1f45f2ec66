"""The members of a tar by its headers, also of one that is damaged: what stands is found, and the gaps are named.

Only headers are read, 512 bytes each, so indexing costs a few microseconds per member. After a header that is none the
scan goes on at the next block that is one. What this room leaves out: what members are for (`table`, `shards`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from clip_core.errors import DataError

__all__ = ["UNDECODED", "Member", "Scan", "scan_tar", "split_name"]

UNDECODED = "surrogateescape"
"""tarfile's way with names that are not UTF-8."""

_BLOCK = 512
_CHUNK = 1 << 20
# Programs fill up the last record, 10 kB as a rule; more zeros are what a torn write or transfer leaves.
_LONGEST_END = 1 << 16
# webdataset's rule: the key is the path up to the first dot of the basename, the extension is everything after it.
_KEY_AND_EXTENSION = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)
# Its rule for data about the shard instead of a sample: "__meta__", "__meta__/a.txt", not "__a.txt".
_META = re.compile(r"__[^/]*__(?:$|/)")
# Types of tarfile whose entries have no data: links, devices, folders, FIFOs.
_WITHOUT_DATA = b"123456"
_REGULAR = b"0\x007"


class Member(NamedTuple):
    """A file in a tar."""

    name: str
    offset: int
    """Where its bytes begin."""
    size: int


class Scan(NamedTuple):
    """What a tar holds."""

    members: list[Member]
    """Regular files whose bytes are all there."""
    damage: list[str]
    """What is wrong with it, in words with offsets; empty for a whole tar."""
    checksums: list[int]
    """Of the headers of `members`, which cover names, sizes and times: they tell one shard from another."""


class _Header(NamedTuple):
    name: str
    size: int
    kind: int
    checksum: int


def scan_tar(path: str | Path) -> Scan:
    """The members of an uncompressed tar. Raises `DataError` for a file that cannot be read or is no tar at all."""
    try:
        with open(path, "rb", buffering=0) as file:
            return _scan(str(path), file)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. Check the path and the number of shards.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def split_name(name: str) -> tuple[str, str] | None:
    """Key and extension in lower case of a member; None for one that belongs to no sample."""
    match = _KEY_AND_EXTENSION.fullmatch(name)
    return None if match is None or _META.match(name) else (match[1], match[2].lower())


def _scan(path: str, file: BinaryIO) -> Scan:
    end = file.seek(0, 2)
    found = Scan([], [], [])
    offset, long_name = 0, ""
    pax: dict[str, str] = {}
    while True:
        block = _at(file, offset, _BLOCK)
        if len(block) < _BLOCK:
            if not offset:
                raise DataError(f"{path}: not a readable tar (it has {end} bytes).")
            found.damage.append(f"cut short at byte {end}, without an end marker")
            break
        if not block.strip(b"\0"):
            following = _first_after_zeros(file, offset + _BLOCK, end)
            if following is None:
                if end - offset > _LONGEST_END:
                    found.damage.append(f"nothing but zeros from byte {offset} to the end at byte {end}")
                break
            header = None
        else:
            following, header = offset + _BLOCK, _parse(block)
        if header is None:
            resumed = _next_header(file, following - following % _BLOCK, end)
            if resumed is None and not found.members:
                raise DataError(f"{path}: not a readable tar (no header in it). It is compressed, or no tar at all.")
            if resumed is None:
                found.damage.append(f"no header at byte {offset}; the rest, {end - offset} bytes, is lost")
                break
            found.damage.append(f"no header at byte {offset}; it goes on at byte {resumed}")
            offset, long_name, pax = resumed, "", {}
            continue
        stated = pax.get("size", "")
        size = int(stated) if stated.isdigit() and header.kind in _REGULAR else header.size
        data = offset + _BLOCK
        offset = data if header.kind in _WITHOUT_DATA else data + -(-size // _BLOCK) * _BLOCK
        if header.kind == ord("L"):
            long_name = _at(file, data, size).split(b"\0")[0].decode("utf-8", UNDECODED)
            continue
        if header.kind == ord("x"):
            pax = dict(_records(_at(file, data, size)))
            continue
        if header.kind in b"gKX":
            continue
        if header.kind in _REGULAR and not any(key.startswith("GNU.sparse") for key in pax):
            name = pax.get("path") or long_name or header.name
            if data + size > end:
                found.damage.append(f"cut short at byte {end}, inside of {name!r}")
                break
            if not name.endswith("/"):
                found.members.append(Member(name, data, size))
                found.checksums.append(header.checksum)
        long_name, pax = "", {}
    return found


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _parse(block: bytes) -> _Header | None:
    try:
        stated = _number(block[148:156])
        size = _number(block[124:136])
    except ValueError:
        return None
    total = sum(block) - sum(block[148:156]) + 256
    if stated != total:
        # Some old programs add up signed characters.
        rest = block[:148] + block[156:]
        if stated != total - 256 * sum(byte > 127 for byte in rest):
            return None
    name = block[:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0]
    if prefix and block[156] not in b"LKS":
        name = prefix + b"/" + name
    return _Header(name.decode("utf-8", UNDECODED), size, block[156], stated)


def _number(field: bytes) -> int:
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.split(b"\0", 1)[0].strip()
    return int(text, 8) if text else 0


def _records(data: bytes) -> Iterator[tuple[str, str]]:
    """Those of a pax header, each "length key=value\\n"; it ends where it is damaged."""
    while data:
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(data):
            return
        key, equals, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        if equals:
            yield key.decode("utf-8", UNDECODED), value.decode("utf-8", UNDECODED)
        data = data[int(length) :]


def _first_after_zeros(file: BinaryIO, offset: int, end: int) -> int | None:
    """Where bytes other than zeros follow what looks like the end marker; None where there are none."""
    while offset < end:
        chunk = _at(file, offset, _CHUNK)
        if not chunk:
            return None
        rest = chunk.lstrip(b"\0")
        if rest:
            return offset + len(chunk) - len(rest)
        offset += len(chunk)
    return None


def _next_header(file: BinaryIO, offset: int, end: int) -> int | None:
    """The first block from `offset` on that is a header of this kind of tar."""
    while offset + _BLOCK <= end:
        chunk = _at(file, offset, _CHUNK)
        for start in range(0, len(chunk) - _BLOCK + 1, _BLOCK):
            # The magic word first: adding up every block would take long.
            if chunk[start + 257 : start + 262] == b"ustar" and _parse(chunk[start : start + _BLOCK]) is not None:
                return offset + start
        offset += _CHUNK
    return None
