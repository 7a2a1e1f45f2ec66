"""OpenCLIP's questions about published weights, answered from clip-hub's registry, and fetching one file of them.

A set of weights is a dict there: `hf_hub` with the repository, `url` where there was one before, and preprocessing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from clip_hub import registry
from clip_hub.addresses import fetch_address
from clip_hub.download import fetch
from clip_hub.repository import require_repository

__all__ = [
    "download_pretrained",
    "download_pretrained_from_hf",
    "download_pretrained_from_url",
    "get_pretrained_cfg",
    "get_pretrained_url",
    "is_pretrained_cfg",
    "list_pretrained",
    "list_pretrained_models_by_tag",
    "list_pretrained_tags_by_model",
]

_SAFE, _PICKLED = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
_OPENAI_HASH = re.compile(r"/([0-9a-f]{64})/[^/]+$")  # OpenAI's addresses have it as a folder


def list_pretrained(as_str: bool = False) -> list[Any]:
    """Every (model, tag), or with `as_str` every "model:tag"."""
    pairs = registry.list_pretrained()
    return [":".join(pair) for pair in pairs] if as_str else pairs


def list_pretrained_models_by_tag(tag: str) -> list[str]:
    """The models that have weights called `tag`."""
    return registry.models_with(tag)


def list_pretrained_tags_by_model(model: str) -> list[str]:
    """The tags of `model`; empty for one without weights."""
    return [tag for name, tag in registry.list_pretrained() if name == model]


def is_pretrained_cfg(model: str, tag: str) -> bool:
    """Whether `model` has weights called `tag`."""
    return bool(get_pretrained_cfg(model, tag))


def get_pretrained_cfg(model: str, tag: str) -> dict[str, Any]:
    """What is known of these weights: where they are and what their images need; empty where there are none."""
    clean = tag.lower().replace("-", "_")
    if (model, clean) not in registry.list_pretrained():
        return {}
    row = registry.find(model, clean)
    found: dict[str, Any] = {
        "url": row.url or "",
        "hf_hub": f"{row.repo}/" + ("" if _SAFE in row.files else row.files[0]),
        "mean": row.mean,
        "std": row.std,
        "interpolation": row.interpolation,
        "resize_mode": row.resize_mode,
    }
    return found | ({"quick_gelu": True} if row.activation == "quick_gelu" else {})


def get_pretrained_url(model: str, tag: str) -> str:
    """Where these weights were before the Hub had them; "" for most."""
    return str(get_pretrained_cfg(model, tag).get("url", ""))


def download_pretrained(
    cfg: Mapping[str, Any], prefer_hf_hub: bool = True, cache_dir: str | os.PathLike[str] | None = None
) -> str:
    """The local path of the weights that `cfg` describes, verified; "" for an empty one.

    Raises:
        ConfigError: an address whose bytes cannot be verified.
        DownloadError: they could not be fetched.
    """
    if not cfg:
        return ""
    if "file" in cfg:
        return str(cfg["file"])
    place = cfg.get("hf_hub", "")
    if cfg.get("url") and not (prefer_hf_hub and place):
        return download_pretrained_from_url(cfg["url"], cache_dir)
    repo, _, name = place.rpartition("/")
    return download_pretrained_from_hf(repo, name or None, cache_dir=cache_dir)


def download_pretrained_from_url(url: str, cache_dir: str | os.PathLike[str] | None = None) -> str:
    """The local path of the file at `url`, verified by "#sha256=..." behind it or by OpenAI's own way of stating it.

    Raises:
        ConfigError: the address does not say the hash.
        DownloadError: the file could not be fetched.
    """
    stated = _OPENAI_HASH.search(url)
    return os.fspath(fetch_address(f"{url}#sha256={stated[1]}" if stated else url, cache_dir=cache_dir))


def download_pretrained_from_hf(
    model_id: str,
    filename: str | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> str:
    """The local path of a file of the repository `model_id`, verified; safetensors is preferred to what was asked for.

    Raises:
        ConfigError: `model_id` is no repository.
        DownloadError: it could not be fetched.
    """
    require_repository(model_id)
    name = filename or _PICKLED
    stem, ending = os.path.splitext(name)
    files = [name]
    if name == _PICKLED:
        files = [_SAFE, name]
    elif ending in (".bin", ".pth"):
        files = [f"{stem}.safetensors", name]
    return os.fspath(fetch(model_id, files, revision=revision or "main", cache_dir=cache_dir))
