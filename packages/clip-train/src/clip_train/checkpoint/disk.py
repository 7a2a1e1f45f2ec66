"""Every effect that a checkpoint has on the disk, in a few functions, so that a test can cut a save short at each.

What is written is flushed through to the disk before the function returns. What this room leaves out: in which order.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "copy_file",
    "hash_file",
    "make_folder",
    "publish",
    "remove",
    "set_aside",
    "sync",
    "write_pickle",
    "write_tensors",
    "write_text",
]


def make_folder(path: Path) -> None:
    """Make `path`, which must not be there; its parents may be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir()


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write `tensors`, which lie on the CPU and share no memory, as safetensors; `OSError` where that fails."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(str(error)) from error
    sync(path)


def write_text(path: Path, text: str) -> None:
    """Write `text` in UTF-8."""
    path.write_text(text, encoding="utf-8")
    sync(path)


def write_pickle(path: Path, value: Any) -> None:
    """Write `value` by torch.save, for what neither JSON nor safetensors can hold."""
    try:
        torch.save(value, path)
    except RuntimeError as error:  # torch's writer on a full disk
        raise OSError(str(error)) from error
    sync(path)


def copy_file(source: Path, path: Path) -> None:
    """Copy `source` byte for byte."""
    shutil.copyfile(source, path)
    sync(path)


def sync(path: Path) -> None:
    """Have the system write through what it holds of the file or folder `path`."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        # Some file systems cannot do that for a folder; there the rename is all there is.
        if not path.is_dir():
            raise
    finally:
        os.close(handle)


def publish(scratch: Path, target: Path) -> None:
    """Put the written file `scratch` under the name `target`, at once and for good."""
    os.replace(scratch, target)
    sync(target.parent)


def remove(folder: Path, mark: str) -> None:
    """Take away the file `mark`, without which `folder` is nothing, and then the rest."""
    (folder / mark).unlink(missing_ok=True)
    sync(folder)
    shutil.rmtree(folder)


def set_aside(folder: Path) -> None:
    """Give `folder` another name beside it, "aside-..."."""
    number, target = 1, folder.with_name(f"aside-{folder.name}")
    while target.exists():
        number += 1
        target = folder.with_name(f"aside-{folder.name}.{number}")
    folder.rename(target)
    sync(folder.parent)


def hash_file(path: Path) -> dict[str, Any]:
    """Size in bytes and sha256 in hexadecimal of the file at `path`, as read back."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}
