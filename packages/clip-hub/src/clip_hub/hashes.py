"""What is known of a file's bytes from where it came: the sha256 that the Hub gave it, wherever a client keeps that.

What this room leaves out: asking the Hub, which `download` does.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

__all__ = ["git_hash", "is_pointer", "sha256_of", "stated_sha256"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


def sha256_of(path: Path) -> str:
    """The sha256 of the bytes in `path`, as 64 digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def git_hash(data: bytes) -> str:
    """What git, and so the Hub, calls a small file with these bytes: 40 digits."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def stated_sha256(path: Path) -> tuple[str, str] | None:
    """The sha256 that the bytes of `path` should have, and where that is said; None where nothing says it.

    Three places are known: huggingface_hub's cache calls a large file by it; beside what `hf download --local-dir`
    fetched lies its record; clip-hub's own cache of addresses calls the folder by it.
    """
    blob = path.resolve()
    if blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name):
        return blob.name, "the Hub's LFS record, in huggingface_hub's cache"
    record = path.parent / ".cache" / "huggingface" / "download" / f"{path.name}.metadata"
    if record.is_file():
        lines = record.read_text(encoding="utf-8").split()
        if len(lines) > 1 and _SHA256.fullmatch(lines[1]):
            return lines[1], f"the Hub's LFS record, in {record.name}"
    if _SHA256.fullmatch(path.parent.name):
        return path.parent.name, "the sha256 of its address"
    return None


def is_pointer(path: Path) -> bool:
    """Whether `path` is what Git puts in the place of a large file that was not fetched."""
    with path.open("rb") as stream:
        return stream.read(40).startswith(b"version https://git-lfs.github.com/spec/")
