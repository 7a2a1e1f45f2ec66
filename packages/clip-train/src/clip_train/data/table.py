"""The index of one shard: which samples it has and where their members lie, as a file that is built once.

    DATA/.clip-train/00000.tar.index     beside the shard, where that can be written
    CACHE/index/DIGEST.index             elsewhere

A table is used as long as the shard still has the size and the time (or what a store calls its version) that it had.
What this room leaves out: which members are the image and the caption (`rows`), and fetching (`fetching`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from array import array
from pathlib import Path

from clip_core.errors import DataError
from clip_train.data.pieces import as_array, load_pieces, save_pieces
from clip_train.data.scan import UNDECODED, Scan, split_name

__all__ = ["Identity", "ShardTable", "index_places", "load_table", "local_identity", "save_table"]

_ARRAYS = {"key_end": "q", "member_end": "q", "kind": "H", "offset": "q", "size": "q"}


@dataclasses.dataclass(frozen=True)
class Identity:
    """Which bytes a shard has."""

    size: int
    version: str
    """The time of a local file, what a store calls the version of its file; "" for what a command writes."""
    sha256: str = ""
    """Of all bytes, where they were fetched."""


@dataclasses.dataclass
class ShardTable:
    """The samples of one shard, in a few pieces of memory."""

    address: str
    identity: Identity
    extensions: tuple[str, ...] = ()
    """Those of all members; `kind` is a position in it."""
    damage: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    """Keys of samples that an earlier index of the shard has and whose bytes are not all there any more."""
    keys: bytes = b""
    """All keys behind each other."""
    key_end: array[int] = dataclasses.field(default_factory=lambda: array("q"))
    """Of each sample, where its key ends in `keys`."""
    member_end: array[int] = dataclasses.field(default_factory=lambda: array("q"))
    """Of each sample, where its members end in the three below."""
    kind: array[int] = dataclasses.field(default_factory=lambda: array("H"))
    offset: array[int] = dataclasses.field(default_factory=lambda: array("q"))
    size: array[int] = dataclasses.field(default_factory=lambda: array("q"))
    digest: str = ""
    """sha256 of names, places and headers: the fingerprint of what the shard holds, wherever it lies."""

    def __len__(self) -> int:
        return len(self.key_end)

    @classmethod
    def of(cls, address: str, identity: Identity, scan: Scan) -> ShardTable:
        """The samples that `scan` has found, in the order of their first members.

        Members of a sample need not be neighbours. One that a sample has already begins another sample of that key.
        """
        table = cls(address, identity, damage=tuple(scan.damage))
        kinds: dict[str, int] = {}
        samples: list[dict[int, tuple[int, int]]] = []
        names: list[str] = []
        latest: dict[str, int] = {}
        digest = hashlib.sha256()
        for member, checksum in zip(scan.members, scan.checksums, strict=True):
            split = split_name(member.name)
            if split is None:
                continue
            key, extension = split
            kind = kinds.setdefault(extension, len(kinds))
            number = latest.get(key, -1)
            if number < 0 or kind in samples[number]:
                latest[key] = number = len(samples)
                samples.append({})
                names.append(key)
            samples[number][kind] = (member.offset, member.size)
            digest.update(f"{member.name}\n{member.offset} {member.size} {checksum}\n".encode("utf-8", UNDECODED))
        keys = bytearray()
        for key, members in zip(names, samples, strict=True):
            keys += key.encode("utf-8", UNDECODED)
            table.key_end.append(len(keys))
            for kind, (offset, size) in members.items():
                table.kind.append(kind)
                table.offset.append(offset)
                table.size.append(size)
            table.member_end.append(len(table.kind))
        table.keys, table.extensions, table.digest = bytes(keys), tuple(kinds), digest.hexdigest()
        return table

    def key(self, number: int) -> str:
        """What the members of a sample are called."""
        start = self.key_end[number - 1] if number else 0
        return self.keys[start : self.key_end[number]].decode("utf-8", UNDECODED)

    def members(self, number: int) -> dict[str, tuple[int, int]]:
        """Extension -> (offset, size) of the bytes of a sample's members."""
        start = self.member_end[number - 1] if number else 0
        places = range(start, self.member_end[number])
        return {self.extensions[self.kind[n]]: (self.offset[n], self.size[n]) for n in places}

    def keep_numbers_of(self, before: ShardTable) -> ShardTable:
        """This table of a damaged shard with all samples that an earlier one has, so that their numbers stay.

        What is not there any more is in `lost`.
        """
        here = {(self.key(n), tuple(self.members(n).items())) for n in range(len(self))}
        lost = [
            before.key(n) for n in range(len(before)) if (before.key(n), tuple(before.members(n).items())) not in here
        ]
        return dataclasses.replace(before, identity=self.identity, damage=self.damage, lost=tuple(lost))


def index_places(address: str, cache: Path | None) -> list[Path]:
    """Where the index of a shard may lie, the first that can be written first."""
    places = []
    if "://" not in address and not address.startswith("pipe:"):
        path = Path(address)
        places.append(path.parent / ".clip-train" / f"{path.name}.index")
        address = str(path.absolute())
    if cache is not None:
        places.append(cache / "index" / f"{hashlib.sha256(address.encode('utf-8', UNDECODED)).hexdigest()[:32]}.index")
    return places


def load_table(place: Path) -> ShardTable | None:
    """The table that a file holds; None where there is none that can be used."""
    found = load_pieces(place)
    if found is None:
        return None
    facts, pieces = found
    try:
        return ShardTable(
            address=facts["address"],
            identity=Identity(**facts["identity"]),
            extensions=tuple(facts["extensions"]),
            damage=tuple(facts["damage"]),
            lost=tuple(facts["lost"]),
            digest=facts["digest"],
            keys=pieces["keys"],
            **{name: as_array(code, pieces[name]) for name, code in _ARRAYS.items()},
        )
    except (ValueError, KeyError, TypeError):
        return None


def save_table(table: ShardTable, place: Path) -> bool:
    """Write a table at once, under its name; False where the place cannot be written."""
    facts = {
        "address": table.address,
        "identity": dataclasses.asdict(table.identity),
        "extensions": table.extensions,
        "damage": table.damage,
        "lost": table.lost,
        "digest": table.digest,
    }
    return save_pieces(place, facts, {"keys": table.keys, **{n: getattr(table, n).tobytes() for n in _ARRAYS}})


def local_identity(path: str) -> Identity:
    """Size and time of a file of this machine. Raises `DataError` when it is not there."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. Check the path and the number of shards.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    return Identity(found.st_size, str(found.st_mtime_ns))
