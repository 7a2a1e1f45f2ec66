"""Puts a finished page into its file; for the reports of clip-train, too."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from clip_core.errors import ConfigError

__all__ = ["write_page"]


def write_page(page: str, output: str | PathLike[str]) -> Path:
    """Write `page` to `output`, with the folders above it; `ConfigError` where that cannot be done."""
    path = Path(output)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: the report cannot be written ({error.strerror}). Choose another file.") from error
    return path
