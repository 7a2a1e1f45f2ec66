"""Fetching everything that `load` needs, weights and vocabulary, without building a model of it."""

from __future__ import annotations

import os
from pathlib import Path

from clip_core.errors import ConfigError
from clip_core.storage import open_checkpoint
from clip_core.tokenizer import MissingTokenizer, find_tokenizer
from clip_hub.addresses import fetch_address, is_address
from clip_hub.download import fetch
from clip_hub.names import only_row_of, resolve
from clip_hub.repository import RepositoryName, fetch_model, fetch_vocabulary
from clip_hub.transfer import Token

__all__ = ["fetch_named"]


def fetch_named(
    name: str,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: Token = None,
    recheck: bool = False,
) -> Path:
    """The file with the weights of a tag or an address, or the folder of a repository, everything verified.

    Args:
        name: "model:tag", "model:https://.../weights.pt#sha256=...", "org/name" or "hf-hub:org/name@revision".
        revision: a branch, a tag or a commit.
        cache_dir, token: as `clip_hub.load`.
        recheck: hash again what the cache holds.

    Raises:
        UnknownModel, ConfigError: the name means nothing that could be fetched.
        DownloadError: it could not be fetched.
    """
    _, _, address = name.partition(":")
    if is_address(name):
        raise ConfigError(f"{name!r} does not say its architecture; write it in front, as in 'ViT-B-32:{name}'.")
    if is_address(address):
        if revision is not None:
            raise ConfigError(f"{name!r} is an address, which has no revisions; leave revision={revision!r} out.")
        return fetch_address(address, cache_dir=cache_dir)
    meant = resolve(name, revision)
    row = only_row_of(meant) if isinstance(meant, RepositoryName) else meant
    if row is not None:
        fetch_vocabulary(row.config().tokenizer, cache_dir=cache_dir, token=token)
        return fetch(row.repo, row.files, revision=row.revision, cache_dir=cache_dir, token=token, recheck=recheck)
    assert isinstance(meant, RepositoryName)
    folder = fetch_model(meant.repo, revision=meant.revision, cache_dir=cache_dir, token=token, recheck=recheck)
    _complete(folder, cache_dir, token)
    return folder


def _complete(folder: Path, cache_dir: str | os.PathLike[str] | None, token: Token) -> None:
    """Fetch the vocabulary where the repository names another one that has it."""
    config = open_checkpoint(folder).config
    if config is not None and isinstance(find_tokenizer(config.tokenizer, folder), MissingTokenizer):
        fetch_vocabulary(config.tokenizer, cache_dir=cache_dir, token=token)
