"""What is trained on of one shard: the samples that have an image and a caption and pass the filter, and who does not.

Kept beside the index, by what was asked for, so that a filter reads each json member once. What this room leaves out:
finding the samples (`table`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from array import array
from collections import Counter
from pathlib import Path
from typing import Any

from clip_core.errors import DataError
from clip_train.data.captions import JSON, Keys, choose
from clip_train.data.filters import Filter
from clip_train.data.pieces import as_array, load_pieces, save_pieces
from clip_train.data.scan import UNDECODED
from clip_train.data.table import ShardTable

__all__ = ["Rows", "Selection", "load_rows", "save_rows", "select"]

_ARRAYS = ("key_end", "image", "image_size", "caption", "caption_size")


@dataclasses.dataclass(frozen=True)
class Selection:
    """What is asked for of every shard."""

    keys: Keys = Keys()
    filter: Filter | None = None

    @property
    def digest(self) -> str:
        """The same for the same question."""
        text = self.filter.text if self.filter is not None else ""
        return hashlib.sha256(repr((self.keys.image, self.keys.caption, text)).encode()).hexdigest()


@dataclasses.dataclass
class Rows:
    """The samples of one shard that are trained on; a size of -1 is that of one whose bytes are lost."""

    keys: bytes = b""
    key_end: array[int] = dataclasses.field(default_factory=lambda: array("q"))
    image: array[int] = dataclasses.field(default_factory=lambda: array("q"))
    image_size: array[int] = dataclasses.field(default_factory=lambda: array("q"))
    caption: array[int] = dataclasses.field(default_factory=lambda: array("q"))
    caption_size: array[int] = dataclasses.field(default_factory=lambda: array("q"))
    held: int = 0
    """Samples in the shard."""
    lacking: int = 0
    """Those without an image or a caption."""
    lacks: str = ""
    """Key of the first of them."""
    filtered: dict[str, int] = dataclasses.field(default_factory=dict)
    """The part of the filter that is not met -> how many samples."""

    def __len__(self) -> int:
        return len(self.key_end)

    def key(self, number: int) -> str:
        """What the members of a sample are called."""
        start = self.key_end[number - 1] if number else 0
        return self.keys[start : self.key_end[number]].decode("utf-8", UNDECODED)

    def mark_lost(self, table: ShardTable) -> int:
        """Note which samples cannot be read any more; returns how many."""
        lost = set(table.lost)
        found = [number for number in range(len(self)) if self.key(number) in lost] if lost else []
        for number in found:
            self.image_size[number] = -1
        return len(found)


def select(table: ShardTable, selection: Selection, path: str) -> Rows:
    """Those of `table` that `selection` asks for; `path` is where the shard's bytes are, which only a filter reads.

    Raises `DataError` when they cannot be read.
    """
    rows, keys, filtered = Rows(held=len(table)), bytearray(), Counter[str]()
    lost = set(table.lost)
    file = open(path, "rb", buffering=0) if selection.filter is not None else None  # noqa: SIM115  # closed below
    try:
        for number in range(len(table)):
            members, key = table.members(number), table.key(number)
            image, caption = choose(selection.keys.image, members), choose(selection.keys.caption, members)
            if image is None or caption is None:
                rows.lacking += 1
                rows.lacks = rows.lacks or key
                continue
            if selection.filter is not None and file is not None:
                fields: Any = None
                if JSON in members and key not in lost:
                    offset, size = members[JSON]
                    file.seek(offset)
                    fields = _fields(file.read(size))
                reason = selection.filter.reason(fields) if isinstance(fields, dict) else "no json member to read"
                if reason:
                    filtered[reason] += 1
                    continue
            keys += key.encode("utf-8", UNDECODED)
            rows.key_end.append(len(keys))
            for place, length, kind in (
                (rows.image, rows.image_size, image),
                (rows.caption, rows.caption_size, caption),
            ):
                place.append(members[kind][0])
                length.append(members[kind][1])
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    finally:
        if file is not None:
            file.close()
    rows.keys, rows.filtered = bytes(keys), dict(filtered)
    return rows


def load_rows(place: Path, table: ShardTable, selection: Selection) -> Rows | None:
    """The rows that were kept for this table and this question."""
    found = load_pieces(_beside(place, selection))
    if found is None or (found[0].get("table"), found[0].get("selection")) != (table.digest, selection.digest):
        return None
    facts, pieces = found
    return Rows(
        keys=pieces["keys"],
        held=facts["held"],
        lacking=facts["lacking"],
        lacks=facts["lacks"],
        filtered=facts["filtered"],
        **{name: as_array("q", pieces[name]) for name in _ARRAYS},
    )


def save_rows(place: Path, table: ShardTable, selection: Selection, rows: Rows) -> bool:
    """Keep them beside the index at `place`; False where that cannot be written."""
    facts = {
        "table": table.digest,
        "selection": selection.digest,
        **{name: getattr(rows, name) for name in ("held", "lacking", "lacks", "filtered")},
    }
    pieces = {"keys": rows.keys, **{name: getattr(rows, name).tobytes() for name in _ARRAYS}}
    return save_pieces(_beside(place, selection), facts, pieces)


def _beside(place: Path, selection: Selection) -> Path:
    return place.with_name(f"{place.name}.{selection.digest[:12]}")


def _fields(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
