"""How repositories are named, and what a model or a tokenizer needs of one, as a folder of huggingface_hub's cache.

Files are asked for by name, each verified by `download`; the names are those that clip-core reads. What this room
leaves out: reading them.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from clip_core.config import HfTokenizerConfig, TokenizerConfig
from clip_core.convert.reading import OPENCLIP_CONFIG, OPENCLIP_WEIGHTS
from clip_core.errors import ConfigError
from clip_core.storage import CONFIG_FILE, weights_of
from clip_core.tokenizer.hf import HF_VOCABULARIES, SETTINGS_FILES
from clip_hub.download import NotInRepository, fetch

__all__ = ["HUB_PREFIX", "RepositoryName", "fetch_model", "fetch_vocabulary", "is_repository", "require_repository"]

HUB_PREFIX = "hf-hub:"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

_TRANSFORMERS_CONFIG = "config.json"
_OPENCLIP_FILES = (OPENCLIP_WEIGHTS, "open_clip_pytorch_model.bin")
_TRANSFORMERS_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


def is_repository(text: str) -> bool:
    """Whether `text` has the form "org/name"."""
    return _NAME.fullmatch(text) is not None


def require_repository(text: str) -> str:
    """`text` where it has the form "org/name"; `ConfigError` where it has not."""
    if not is_repository(text):
        raise ConfigError(f"{text!r} is no Hub repository; write org/name, as in laion/my-clip.")
    return text


@dataclass(frozen=True, slots=True)
class RepositoryName:
    """A repository and a branch, a tag or a commit of it."""

    repo: str
    """"org/name"."""
    revision: str = "main"

    @classmethod
    def of(cls, text: str, revision: str | None = None) -> RepositoryName:
        """What "org/name", "hf-hub:org/name" or either with "@revision" means; `revision` is for those without.

        Raises:
            ConfigError: it has another form, or two revisions.
        """
        repo, _, stated = text.removeprefix(HUB_PREFIX).partition("@")
        if stated and revision not in (None, stated):
            raise ConfigError(f"{text!r} names a revision and revision={revision!r} another one; leave one out.")
        return cls(require_repository(repo), stated or revision or "main")


def fetch_model(
    repo: str,
    *,
    revision: str = "main",
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    recheck: bool = False,
) -> Path:
    """A folder that `clip_core.load` reads, with the model of `repo`: a bundle, or OpenCLIP's or transformers' layout.

    Where a repository has several, the first of these is taken. `recheck`: as in `download.fetch`.

    Raises:
        DownloadError: it has none of them, or a file could not be fetched.
    """
    wanted = _Repository(repo, revision, cache_dir, token, recheck)
    if (found := wanted.first(CONFIG_FILE)) is not None:
        wanted.need(weights_of(found.parent).name)
        wanted.tokenizer()
        return found.parent
    if (found := wanted.first(OPENCLIP_CONFIG)) is not None and wanted.first(*_OPENCLIP_FILES) is not None:
        wanted.tokenizer()
        return found.parent
    theirs = wanted.first(_TRANSFORMERS_CONFIG)
    if theirs is not None:
        weights = wanted.need(*_TRANSFORMERS_FILES)
        if weights.suffix == ".json":
            for name in sorted(set(json.loads(weights.read_text(encoding="utf-8"))["weight_map"].values())):
                wanted.need(name)
        wanted.first("preprocessor_config.json", "processor_config.json")
        wanted.first("vocab.json")
        wanted.tokenizer()
        return theirs.parent
    if found is not None:
        wanted.need("model.safetensors", "pytorch_model.bin")
        wanted.tokenizer()
        return found.parent
    raise NotInRepository(
        f"{repo} at {revision} holds no model that can be read: it has neither {CONFIG_FILE} (a bundle), nor "
        f"{OPENCLIP_CONFIG} (OpenCLIP), nor {_TRANSFORMERS_CONFIG} (transformers)."
    )


def fetch_vocabulary(
    config: TokenizerConfig,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> Path | None:
    """A folder with the vocabulary that `config` names; None where it is not of the Hub.

    Raises:
        DownloadError: it could not be fetched.
    """
    if not isinstance(config, HfTokenizerConfig):
        return None
    wanted = _Repository(config.source, "main", cache_dir, token)
    wanted.need(*HF_VOCABULARIES)
    return wanted.tokenizer()


class _Repository:
    """One commit of a repository: the one that its first file came from, so that files fit each other."""

    def __init__(
        self,
        repo: str,
        revision: str,
        cache_dir: str | os.PathLike[str] | None,
        token: str | bool | None,
        recheck: bool = False,
    ) -> None:
        self._repo, self._revision, self._cache_dir, self._token = repo, revision, cache_dir, token
        self._recheck = recheck

    def need(self, *names: str) -> Path:
        path = fetch(
            self._repo,
            names,
            revision=self._revision,
            cache_dir=self._cache_dir,
            token=self._token,
            recheck=self._recheck,
        )
        self._revision = path.parent.name  # the cache calls the folder by the commit
        return path

    def first(self, *names: str) -> Path | None:
        """The first of `names` that the repository has, or None."""
        try:
            return self.need(*names)
        except NotInRepository as error:
            self._revision = error.commit or self._revision
            return None

    def tokenizer(self) -> Path | None:
        """The folder with the vocabulary, and what is said about it, where there is one."""
        found = self.first(*HF_VOCABULARIES)
        for name in SETTINGS_FILES:
            self.first(name)
        return None if found is None else found.parent
