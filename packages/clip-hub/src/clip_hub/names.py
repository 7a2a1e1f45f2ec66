"""What a name means that is asked for on the command line: a row of the registry, or a repository of the Hub.

What this room leaves out: files and folders on this disk, and fetching anything.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from clip_core import list_models
from clip_core.convert.reading import OPENCLIP_WEIGHTS
from clip_core.errors import ConfigError, UnknownModel, nearest
from clip_core.presets import split_name
from clip_hub.registry import all_tags, find_name, rows_of
from clip_hub.repository import HUB_PREFIX, RepositoryName, is_repository
from clip_hub.tag import Tag

__all__ = ["only_row_of", "resolve"]


def resolve(name: str, revision: str | None = None) -> Tag | RepositoryName:
    """The row that "model:tag" names, or the repository that "org/name" or "hf-hub:org/name@revision" does.

    Args:
        name: as `clip_hub.load` takes it.
        revision: a branch, a tag or a commit to take instead of the row's, or of "main".

    Raises:
        UnknownModel: it is neither, or its model or tag is not known; the nearest are listed.
        ConfigError: it is a path on this disk, or names two revisions.
    """
    if Path(name).exists():
        other = f" Write hf-hub:{name} for the repository of that name." if is_repository(name) else ""
        raise ConfigError(f"{name!r} is a file or a folder here, and nothing to be fetched.{other}")
    model, _, _ = name.partition(":")
    if name.startswith(HUB_PREFIX):
        return RepositoryName.of(name, revision)
    if split_name(model)[0] not in list_models() and is_repository(name.partition("@")[0]):
        return RepositoryName.of(name, revision)
    if ":" not in name and split_name(model)[0] not in list_models():
        tagged = [row.name for row in all_tags() if row.tag.startswith(name.lower())]
        close = tagged[:5] or nearest(name, list_models())
        guess = f" Did you mean {', '.join(close)}?" if close else ""
        raise UnknownModel(
            f"{name!r} is no model.{guess} Write MODEL:TAG as in ViT-B-32:laion2b_s34b_b79k, or a repository as in "
            "timm/ViT-B-16-SigLIP; clip_hub.list_pretrained() lists every pair."
        )
    row = find_name(name)
    return dataclasses.replace(row, revision=revision) if revision else row


def only_row_of(name: RepositoryName) -> Tag | None:
    """The row that says what is in a repository which does not say it itself; None for the others."""
    row = next((row for row in rows_of(name.repo) if OPENCLIP_WEIGHTS not in row.files), None)
    if row is None or name.revision == "main":
        return row
    return dataclasses.replace(row, revision=name.revision)
