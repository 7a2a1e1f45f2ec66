"""What OpenCLIP's model names mean: an architecture, `hf-hub:org/name`, `local-dir:folder`, or a configuration added.

For each: its configuration, its weights, its tokenizer. What this room leaves out: building the model (`creation`).
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import clip_core
from clip_core import ClipConfig
from clip_core.config import ClipTokenizerConfig, HfTokenizerConfig
from clip_core.convert.checkpoint import Checkpoint, differences, read_json
from clip_core.convert.openclip_config import from_openclip
from clip_core.convert.openclip_writing import to_openclip_config
from clip_core.convert.reading import OPENCLIP_CONFIG
from clip_core.errors import CheckpointMismatch, ConfigError, UnknownModel
from clip_core.presets import QUICK_GELU_SUFFIX, split_name
from clip_core.storage import open_checkpoint
from clip_core.tokenizer import Tokenizer, build_tokenizer
from clip_hub import registry
from clip_hub.download import NotInRepository, fetch
from clip_hub.drop_in.tokenizers import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer
from clip_hub.repository import HUB_PREFIX, RepositoryName, fetch_model, fetch_vocabulary

__all__ = [
    "Source",
    "add_model_config",
    "find_source",
    "get_model_config",
    "get_tokenizer",
    "list_models",
    "parse_model_name",
]

_log = logging.getLogger(__name__)

_PREFIXES: dict[str, Literal["local-dir", "hf-hub"]] = {"local-dir:": "local-dir", HUB_PREFIX: "hf-hub"}
_added: dict[str, dict[str, Any]] = {}
"""The `model_cfg` of each architecture that `add_model_config` brought."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A model to be built: `weights` opens its checkpoint, None where there is none."""

    config: ClipConfig
    weights: Callable[[], Checkpoint] | None


def parse_model_name(model_name: str) -> tuple[str | None, str]:
    """("hf-hub" or "local-dir", what stands behind it), or (None, the name); `ConfigError` where nothing does."""
    for prefix, schema in _PREFIXES.items():
        if model_name.startswith(prefix):
            rest = model_name.removeprefix(prefix)
            if not rest:
                raise ConfigError(f"{model_name!r} names nothing behind {prefix!r}.")
            return schema, rest
    return None, model_name


def list_models() -> list[str]:
    """Every architecture that `create_model` takes, sorted as people sort numbers."""
    parts = re.compile(r"(\d+)")
    names = {*clip_core.list_models(), *_added}
    return sorted(names, key=lambda name: [int(p) if p.isdigit() else p for p in parts.split(name.lower())])


def add_model_config(path: str | os.PathLike[str]) -> None:
    """Add the architectures of OpenCLIP's JSON files, a file or a folder of them, each under its file's name.

    Raises:
        ConfigError: there is none, or one states what clip-core has no counterpart for.
    """
    place = Path(path)
    files = sorted(place.glob("*.json")) if place.is_dir() else [place]
    found = {}
    for file in files:
        content = read_json(file)
        if {"embed_dim", "vision_cfg", "text_cfg"} <= set(content):
            _config(content, where=str(file))
            found[file.stem] = content
    if not found:
        raise ConfigError(f"{place} states no model; allowed: JSON with embed_dim, vision_cfg and text_cfg.")
    _added.update(found)


def get_model_config(model_name: str) -> dict[str, Any] | None:
    """OpenCLIP's `model_cfg` of a model, written out in full; None for a name that is not known.

    Raises:
        ConfigError: OpenCLIP has no words for this architecture.
        DownloadError: a repository's configuration could not be fetched.
    """
    schema, name = parse_model_name(model_name)
    if schema is not None:
        content = _stated(schema, name, None)
        found: dict[str, Any] = content.get("model_cfg", content)
        return found
    if name in _added:
        return copy.deepcopy(_added[name])
    try:
        config = clip_core.get_config(name)
    except UnknownModel:
        return None
    made: dict[str, Any] = to_openclip_config(config)["model_cfg"]
    return made


def find_source(
    model_name: str,
    pretrained: str | os.PathLike[str] | None,
    *,
    load_weights: bool = True,
    quick_gelu: bool = False,
    image_size: int | tuple[int, int] | None = None,
    context_length: int | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Source:
    """The model that OpenCLIP's `model_name` and `pretrained` mean; nothing but configurations is fetched yet.

    Raises:
        UnknownModel: no such architecture or tag; the nearest are listed.
        CheckpointMismatch: the weights are of another model, or were trained with another activation.
        ConfigError: a file or a folder that is not there or cannot be understood.
        DownloadError: a repository could not be fetched.
    """
    schema, name = parse_model_name(model_name)
    if schema is not None:
        if pretrained:
            _log.warning("pretrained=%r is not used: %r brings its own weights", pretrained, model_name)
        if not load_weights:
            content = _stated(schema, name, cache_dir)
            config = _config(content.get("model_cfg", content), content.get("preprocess_cfg"), where=model_name)
            return Source(config=_changed(config, quick_gelu, image_size, context_length), weights=None)
        held = open_checkpoint(_folder(schema, name, cache_dir))
        assert held.config is not None  # folders state theirs
        return Source(config=_changed(held.config, quick_gelu, image_size, context_length), weights=lambda: held)
    if not pretrained:
        return Source(config=_changed(_named(name), quick_gelu, image_size, context_length), weights=None)
    path = Path(pretrained)
    if name in _added or path.exists():
        if not path.exists():
            raise ConfigError(f"There is no file {os.fspath(pretrained)!r}; {name!r} was added and has no tags.")
        config = _changed(_named(name), quick_gelu, image_size, context_length)
        return Source(config=config, weights=(lambda: _opened(path, name, config)) if load_weights else None)
    row = registry.find(split_name(name)[0] + QUICK_GELU_SUFFIX if quick_gelu else name, os.fspath(pretrained))
    config = row.config()
    if row.activation == "quick_gelu" and not quick_gelu and not split_name(name)[1]:
        _log.info("%s: the weights %s bring QuickGELU; OpenCLIP would compute with GELU and warn", name, row.tag)
    config = _changed(config, False, image_size, context_length)

    def fetched() -> Checkpoint:
        return open_checkpoint(fetch(row.repo, row.files, revision=row.revision, cache_dir=cache_dir), config)

    return Source(config=config, weights=fetched if load_weights else None)


def get_tokenizer(
    model_name: str = "",
    context_length: int | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    **kwargs: Any,
) -> Tokenizer:
    """The tokenizer of a model; "" is CLIP's own.

    Args:
        model_name: as `create_model` takes it.
        context_length: the length of a row; default the model's own.
        cache_dir: where a download is kept.
        kwargs: of `SimpleTokenizer` or `HFTokenizer`.

    Raises:
        UnknownModel: no such architecture, for which OpenCLIP would give CLIP's own.
        ConfigError: a value that the tokenizer does not take, or a folder without its vocabulary.
        DownloadError: the vocabulary could not be fetched.
    """
    schema, name = parse_model_name(model_name)
    if schema is None and not name:
        return SimpleTokenizer(context_length=context_length, **kwargs)
    if schema is None and name not in _added:
        config = _changed(_named(name), False, None, context_length).tokenizer
        if isinstance(config, ClipTokenizerConfig):
            return SimpleTokenizer(context_length=config.context_length, **kwargs)
        if kwargs and isinstance(config, HfTokenizerConfig):
            given = {"clean": config.clean, "strip_sep_token": config.drop_separator, **kwargs}
            return HFTokenizer(config.source, config.context_length, cache_dir=cache_dir, **given)
        folder = fetch_vocabulary(config, cache_dir=cache_dir)
        if isinstance(config, HfTokenizerConfig) and folder is not None:
            return HFTokenizer.of(config, folder)
        return build_tokenizer(config, folder)
    try:
        content = _added[name] if schema is None else _stated(schema, name, cache_dir)
    except NotInRepository:
        _log.warning("%s has no %s; its tokenizer alone is taken", name, OPENCLIP_CONFIG)
        return HFTokenizer(name, context_length, cache_dir=cache_dir, **kwargs)
    text = content.get("model_cfg", content).get("text_cfg", {})
    context = context_length or text.get("context_length", DEFAULT_CONTEXT_LENGTH)
    given = {**(text.get("tokenizer_kwargs") or {}), **kwargs}
    if not text.get("hf_tokenizer_name"):
        return SimpleTokenizer(context_length=context, **given)
    source = name if schema == "local-dir" else text["hf_tokenizer_name"]
    return HFTokenizer(source, context, cache_dir=cache_dir, tokenizer_mode=text.get("tokenizer_mode"), **given)


def _named(name: str) -> ClipConfig:
    return _config(_added[name], where=name) if name in _added else clip_core.get_config(name)


def _config(model_cfg: Mapping[str, Any], preprocess_cfg: Mapping[str, Any] | None = None, *, where: str) -> ClipConfig:
    try:
        # What a tokenizer pads with is its own affair here: `HFTokenizer` reads it.
        return from_openclip(model_cfg, preprocess_cfg, pad_id=None)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _changed(
    config: ClipConfig, quick_gelu: bool, image_size: int | tuple[int, int] | None, context_length: int | None
) -> ClipConfig:
    config = config.with_activation("quick_gelu") if quick_gelu else config
    return config.resized(tuple(image_size) if isinstance(image_size, list) else image_size, context_length)


def _folder(schema: str, name: str, cache_dir: str | os.PathLike[str] | None) -> Path:
    if schema == "hf-hub":
        asked = RepositoryName.of(name)
        return fetch_model(asked.repo, revision=asked.revision, cache_dir=cache_dir)
    if not Path(name).is_dir():
        raise ConfigError(f"'local-dir:' names {name!r}, and there is no such folder.")
    return Path(name)


def _stated(schema: str, name: str, cache_dir: str | os.PathLike[str] | None) -> dict[str, Any]:
    """What `open_clip_config.json` of a folder or a repository says."""
    if schema == "hf-hub":
        repo, _, revision = name.partition("@")
        return read_json(fetch(repo, [OPENCLIP_CONFIG], revision=revision or "main", cache_dir=cache_dir))
    return read_json(_folder(schema, name, cache_dir) / OPENCLIP_CONFIG)


def _opened(path: Path, name: str, config: ClipConfig) -> Checkpoint:
    """The checkpoint in `path`, which must be of `config` where it says what it is of."""
    held = open_checkpoint(path, config)
    if held.config is None:
        return held
    stated = held.config.resized(config.image.image_size, config.text.context_length)
    for field, (asked, found) in differences(config, stated).items():
        raise CheckpointMismatch(
            f"{path} ({held.layout}) holds another model than {name!r}: {field} is {found!r} there, {asked!r} asked. "
            f"Name the model that it is; a folder loads as it is with 'local-dir:{path}'."
        )
    return held
