"""Facts and pieces of memory in one small file that is whole or not there: how an index is kept.

A line of JSON, then the pieces behind each other, with their sha256 in the line. What this room leaves out: what they
mean.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sys
import tempfile
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["as_array", "load_pieces", "save_pieces"]

_log = logging.getLogger(__name__)
_FORMAT = 1


def save_pieces(place: Path, facts: Mapping[str, Any], pieces: Mapping[str, bytes]) -> bool:
    """Write a file at once, under its name; False where the place cannot be written."""
    body = b"".join(pieces.values())
    head = {
        "format": _FORMAT,
        "byteorder": sys.byteorder,
        "facts": facts,
        "lengths": {name: len(piece) for name, piece in pieces.items()},
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    beside = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place.parent, prefix=f".{place.name}.", delete=False) as file:
            beside = file.name
            file.write(json.dumps(head).encode() + b"\n" + body)
        # A temporary file is its owner's alone; others who read the data may read its index.
        os.chmod(beside, 0o644)
        os.replace(beside, place)
    except OSError:
        if beside is not None:
            with contextlib.suppress(OSError):
                os.unlink(beside)
        return False
    return True


def load_pieces(place: Path) -> tuple[dict[str, Any], dict[str, bytes]] | None:
    """What `save_pieces` wrote; None where there is nothing, or nothing that can be used."""
    try:
        data = place.read_bytes()
    except OSError:
        return None
    head, _, body = data.partition(b"\n")
    try:
        facts = json.loads(head)
        if facts["format"] != _FORMAT or facts["byteorder"] != sys.byteorder:
            return None
        if facts["sha256"] != hashlib.sha256(body).hexdigest():
            raise ValueError("its bytes have changed")
        pieces, start = {}, 0
        for name, length in facts["lengths"].items():
            pieces[name] = body[start : start + length]
            start += length
        return facts["facts"], pieces
    except (ValueError, KeyError, TypeError) as error:
        _log.warning("%s cannot be used (%s); building it again", place, error)
        return None


def as_array(code: str, piece: bytes) -> array[int]:
    """Numbers of `array`'s kind `code`."""
    made: array[int] = array(code)
    made.frombytes(piece)
    return made
