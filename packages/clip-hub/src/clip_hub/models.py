"""Models by published name: the calls of clip-core, with tags.

A tag brings its own preprocessing and activation, and the vocabulary of its tokenizer. Local files and folders work as
in clip-core.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from pathlib import Path

import torch

import clip_core
from clip_core import Bundle, Clip, ConfigError, UnknownModel, list_models
from clip_core.building import Precision, build
from clip_core.device import resolve_device
from clip_core.preprocess import AugmentConfig, Transform, build_transform
from clip_core.presets import split_name
from clip_core.tokenizer import MissingTokenizer, Tokenizer
from clip_core.weights import SUFFIXES
from clip_hub.addresses import fetch_address, is_address
from clip_hub.download import DownloadError, fetch
from clip_hub.names import only_row_of
from clip_hub.registry import find, find_name
from clip_hub.repository import HUB_PREFIX, RepositoryName, fetch_model, fetch_vocabulary, is_repository
from clip_hub.tag import Tag

__all__ = ["create", "create_model", "create_model_and_transforms", "get_tokenizer", "load"]

_log = logging.getLogger(__name__)


def create_model(
    name: str,
    pretrained: str | os.PathLike[str] | None = None,
    precision: Precision = "fp32",
    device: str | torch.device = "cpu",
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> Clip:
    """The architecture `name` in evaluation mode with published, local or fresh weights.

    Args:
        name: one of `list_models()`.
        pretrained: a tag of `list_pretrained()`, a weights file or a folder, "https://.../weights.pt#sha256=..." (see
            `addresses`), or None.
        precision: dtype of the parameters: "fp32", "bf16" or "fp16".
        device: "meta" builds the layout without memory and fetches nothing.
        revision: of the Hub repository, a branch, a tag or a commit; default the one that the registry states.
        cache_dir: where downloads are kept; default huggingface_hub's cache.
        token: for private repositories; default the one of `hf auth login`.

    Raises:
        UnknownModel: no such architecture or tag; the nearest are listed.
        CheckpointMismatch: the weights do not fit, or were trained with another activation than the name asks for.
        DownloadError: the weights could not be fetched.
    """
    row = _find_row(name, pretrained, revision)
    if row is None:
        pretrained = _on_disk(name, pretrained, device, cache_dir)
        return clip_core.create_model(name, pretrained, precision=precision, device=device)
    config = row.config()
    if config != clip_core.get_config(name):
        _log.info("%s: %s brings its own activation (%s) or preprocessing", name, row.tag, row.activation)
    if _on_meta(device):
        return build(config, precision=precision, device=device)
    path = fetch(row.repo, row.files, revision=row.revision, cache_dir=cache_dir, token=token)
    return build(config, path, precision=precision, device=device)


def create(
    name: str,
    pretrained: str | os.PathLike[str] | None = None,
    precision: Precision = "fp32",
    device: str | torch.device = "cpu",
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> Bundle:
    """As `create_model`, with the transform and the tokenizer beside the model; a tag's vocabulary is fetched, too."""
    row = _find_row(name, pretrained, revision)
    if row is None:
        pretrained = _on_disk(name, pretrained, device, cache_dir)
        return clip_core.create(name, pretrained, precision=precision, device=device)
    # Before the weights: it is small, and what is wrong with it shows at once.
    tokenizer = None if _on_meta(device) else fetch_vocabulary(row.config().tokenizer, cache_dir=cache_dir, token=token)
    fetched = {"revision": revision, "cache_dir": cache_dir, "token": token}
    model = create_model(name, pretrained, precision=precision, device=device, **fetched)  # type: ignore[arg-type]
    return Bundle.of(model, tokenizer)


def create_model_and_transforms(
    name: str,
    pretrained: str | os.PathLike[str] | None = None,
    precision: Precision = "fp32",
    device: str | torch.device = "cpu",
    *,
    augment: AugmentConfig | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> tuple[Clip, Transform, Transform]:
    """As `create_model`, with the training transform and the evaluation transform: (model, train, eval)."""
    fetched = {"revision": revision, "cache_dir": cache_dir, "token": token}
    model = create_model(name, pretrained, precision=precision, device=device, **fetched)  # type: ignore[arg-type]
    preprocess = model.config.preprocess
    return model, build_transform(preprocess, train=True, augment=augment), build_transform(preprocess)


def get_tokenizer(
    name: str,
    context_length: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> Tokenizer:
    """The tokenizer of architecture `name`, as `clip_core.get_tokenizer`; a vocabulary not in `folder` is fetched.

    Raises:
        DownloadError: the vocabulary could not be fetched.
    """
    if folder is None:
        folder = fetch_vocabulary(clip_core.get_config(name).tokenizer, cache_dir=cache_dir, token=token)
    return clip_core.get_tokenizer(name, context_length, folder)


def load(
    name: str | os.PathLike[str],
    *,
    precision: Precision = "fp32",
    device: str | torch.device = "cpu",
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> Bundle:
    """The bundle that `name` means.

    Args:
        name: one of
            "model:tag", as in "ViT-B-32:laion2b_s34b_b79k", or with what else `create_model` takes behind the colon: a
            local file or folder, or "https://.../weights.pt#sha256=...";
            "org/name", "hf-hub:org/name" or either with "@revision", a Hub repository with a bundle, or a model in
            OpenCLIP's or transformers' layout;
            a local folder that `clip_core.load` reads. What is there on disk goes first.
        precision, device, revision, cache_dir, token: as `create_model`.

    Raises:
        UnknownModel: `name` is none of these, or its model or tag is unknown; the nearest names are listed.
        ConfigError, CheckpointMismatch, DownloadError: as `create_model` and `clip_core.load`.
    """
    text = os.fspath(name)
    if text and Path(text).is_dir():
        _refuse_revision(revision, text)
        return clip_core.load(text, precision=precision, device=device)
    if is_address(text):
        raise ConfigError(f"{text!r} does not say its architecture; write it in front, as in 'ViT-B-32:{text}'.")
    model, _, tag = text.partition(":")
    known = split_name(model)[0] in list_models()
    hub = text.startswith(HUB_PREFIX)
    if hub or (not known and is_repository(text.partition("@")[0]) and not Path(text).exists()):
        try:
            return _load_repository(RepositoryName.of(text, revision), precision, device, cache_dir, token)
        except DownloadError as error:
            if hub:
                raise
            # Whoever meant a folder should not have to guess why the Hub was asked.
            raise type(error)(f"{error} There is no folder {text!r} here, either.") from error
    if not known:
        if Path(text).is_file():
            raise ConfigError(f"{text!r} is a file; say which architecture it is for, as in 'ViT-B-32:{text}'.")
        if os.sep in text or text.startswith("."):
            raise ConfigError(
                f"There is no folder {text!r}; give the path of one, a name as model:tag, or a Hub repository as "
                "org/name."
            )
    if not tag:
        find_name(text)  # raises, and names the tags of the model
    return create(model, tag, precision=precision, device=device, revision=revision, cache_dir=cache_dir, token=token)


def _load_repository(
    name: RepositoryName,
    precision: Precision,
    device: str | torch.device,
    cache_dir: str | os.PathLike[str] | None,
    token: str | bool | None,
) -> Bundle:
    row = only_row_of(name)
    if row is not None:
        fetched = {"revision": row.revision, "cache_dir": cache_dir, "token": token}
        return create(row.model, row.tag, precision=precision, device=device, **fetched)  # type: ignore[arg-type]
    folder = fetch_model(name.repo, revision=name.revision, cache_dir=cache_dir, token=token)
    bundle = clip_core.load(folder, precision=precision, device=device)
    if not isinstance(bundle.tokenizer, MissingTokenizer):
        return bundle
    # The repository names another one that has its vocabulary.
    return Bundle.of(bundle.model, fetch_vocabulary(bundle.config.tokenizer, cache_dir=cache_dir, token=token))


def _find_row(name: str, pretrained: str | os.PathLike[str] | None, revision: str | None) -> Tag | None:
    """The row of a tag; None for fresh weights, addresses, and what looks like a path, which is clip-core's affair."""
    if pretrained is None or pretrained == "" or is_address(pretrained):
        _refuse_revision(revision, pretrained or "fresh weights")
        return None
    try:
        row = find(name, os.fspath(pretrained))
        return dataclasses.replace(row, revision=revision) if revision else row
    except UnknownModel:
        path = Path(pretrained)
        # clip-core also says when it is not there.
        if path.exists() or path.suffix in SUFFIXES or len(path.parts) > 1:
            _refuse_revision(revision, pretrained)
            return None
        raise


def _refuse_revision(revision: str | None, where: str | os.PathLike[str]) -> None:
    if revision is not None:
        raise ConfigError(
            f"revision={revision!r} is for repositories of the Hub, and {os.fspath(where)} is not in one."
        )


def _on_disk(
    name: str,
    pretrained: str | os.PathLike[str] | None,
    device: str | torch.device,
    cache_dir: str | os.PathLike[str] | None,
) -> str | os.PathLike[str] | None:
    """`pretrained`, or the file that was fetched from it where it is an address."""
    if not isinstance(pretrained, str) or not is_address(pretrained):
        return pretrained
    clip_core.get_config(name)  # an unknown architecture shows before gigabytes are fetched
    return None if _on_meta(device) else fetch_address(pretrained, cache_dir=cache_dir)


def _on_meta(device: str | torch.device) -> bool:
    return resolve_device(device, meta=True).type == "meta"
