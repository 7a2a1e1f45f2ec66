"""Folders of files that appear whole or not at all: what bundles and exported checkpoints are written through."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from clip_core.errors import ConfigError, StorageError

__all__ = ["write_folder"]


def write_folder(
    folder: str | os.PathLike[str],
    write: Callable[[Path], None],
    *,
    what: str,
    mark: str,
    files: Collection[str],
    size: int,
    overwrite: bool = False,
) -> Path:
    """`folder`, filled by `write(scratch)`; everything is written beside it first and then put under its name.

    Args:
        folder: where; its parents are made.
        write: fills the empty folder that it is given.
        what: what to call the content in messages ("bundle").
        mark: the file that every folder of this kind has.
        files: the names of all files that one may have, `mark` among them.
        size: about how many bytes are written.
        overwrite: replace a folder of this kind that is already there. One that holds anything else is never replaced.

    Raises:
        ConfigError: the folder exists and may not be replaced.
        StorageError: it cannot be written there, or the disk is full.
    """
    from safetensors import SafetensorError

    target = Path(folder).resolve()
    held = {path.name for path in target.iterdir()} if target.is_dir() else set()
    if target.is_file() or (held and not overwrite):
        raise ConfigError(f"{folder} already exists; choose another folder or pass overwrite=True to replace a {what}.")
    if Path.cwd().is_relative_to(target):
        raise ConfigError(f"{folder} is the current folder or holds it; choose a folder inside it.")
    strange = held - set(files)
    if strange or (held and mark not in held):
        raise ConfigError(
            f"{folder} holds more than a {what} ({min(strange or held)} ...) and is not replaced; choose another."
        )
    # A kill or a full disk never leaves half of it under its name.
    scratch = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    old = scratch.with_suffix(".old")
    try:
        scratch.mkdir(parents=True)
        write(scratch)
        if target.is_dir():
            target.rename(old)
        scratch.rename(target)
    except BaseException as error:
        if old.exists():
            old.rename(target)
        shutil.rmtree(scratch, ignore_errors=True)
        if isinstance(error, (OSError, SafetensorError)):
            raise StorageError(
                f"Cannot write the {what} {folder}, about {size / 1e6:.1f} MB: {error}. Nothing was left there; make "
                "room or choose another folder."
            ) from error
        raise
    if old.exists():
        shutil.rmtree(old)
    return Path(folder)
