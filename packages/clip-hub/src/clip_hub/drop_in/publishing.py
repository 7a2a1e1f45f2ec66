"""OpenCLIP's calls for publishing a model, as pushes of `clip_hub.publish`: checked, in one commit, without pickles."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import clip_core
from clip_core import Bundle
from clip_core.convert.checkpoint import differences
from clip_core.convert.openclip_config import from_openclip
from clip_core.errors import ConfigError
from clip_hub.card import Description
from clip_hub.download import DownloadError, NotInRepository, fetch
from clip_hub.drop_in.creation import create_model_from_pretrained
from clip_hub.drop_in.sources import get_tokenizer
from clip_hub.publish import Pushed, push
from clip_hub.repository import fetch_vocabulary

__all__ = ["push_pretrained_to_hf_hub", "push_to_hf_hub"]

_SAID = ("description", "license")
_TEXT = "A photo of two dogs, and 3 cats!"


def push_to_hf_hub(
    model: Any,
    tokenizer: Any,
    model_config: Mapping[str, Any] | None,
    repo_id: str,
    commit_message: str = "Add model",
    token: str | None = None,
    revision: str | None = None,
    private: bool = False,
    create_pr: bool = False,
    model_card: Mapping[str, Any] | None = None,
    safe_serialization: bool | str = "both",
) -> Pushed:
    """Publish `model` as `repo_id`, so that OpenCLIP, clip-hub and transformers load it; see `clip_hub.push`.

    Args:
        model: one of `create_model`'s.
        tokenizer: the model's own; another one is refused.
        model_config: None, or what OpenCLIP would say of this model.
        repo_id: "org/name".
        commit_message, token, private: as `push`.
        revision: the branch.
        create_pr: open a pull request.
        model_card: `description` and `license`, for a repository without a README.md; one that is there stays.
        safe_serialization: True or "both"; either way safetensors alone is published.

    Raises:
        ConfigError: a value that is not honoured, or a tokenizer or a configuration of another model.
        UploadError: nothing was published; says why.
    """
    if safe_serialization not in (True, "both"):
        raise ConfigError(f"safe_serialization is {safe_serialization!r}; allowed: True or 'both'. Pickles run code.")
    card = dict(model_card or {})
    strange = [key for key in card if key not in _SAID]
    if strange:
        raise ConfigError(
            f"model_card has {strange[0]!r}; allowed: {', '.join(_SAID)}. For more, write a README.md: save the model "
            "with clip_core.save, put it into that folder, and use clip_hub.push."
        )
    bundle = _bundle(model)
    if model_config is not None:
        different = differences(bundle.config, from_openclip(model_config, pad_id=None))
        for field, (ours, theirs) in different.items():
            if not field.startswith(("preprocess.", "tokenizer.")):
                raise ConfigError(f"model_config says {field} is {theirs!r}, and the model has {ours!r}; leave it out.")
    asked = tokenizer([_TEXT])
    if asked.tolist() != bundle.tokenizer([_TEXT]).tolist():
        raise ConfigError("This tokenizer is not the model's: it gives other ids. Pass get_tokenizer of the same name.")
    branch = revision or "main"
    with tempfile.TemporaryDirectory(prefix="clip-hub-") as scratch:
        folder = clip_core.save(bundle, Path(scratch) / "bundle")
        held = _readme(repo_id, branch, token)
        if held is not None:
            shutil.copyfile(held, folder / "README.md")
        return push(
            folder,
            repo_id,
            description=Description(summary=card.get("description", ""), licence=card.get("license", "")),
            private=private,
            branch=branch,
            pull_request=create_pr,
            message=commit_message,
            token=token,
        )


def push_pretrained_to_hf_hub(
    model_name: str,
    pretrained: str,
    repo_id: str,
    precision: str = "fp32",
    image_mean: tuple[float, ...] | None = None,
    image_std: tuple[float, ...] | None = None,
    image_interpolation: str | None = None,
    image_resize_mode: str | None = None,
    commit_message: str = "Add model",
    token: str | None = None,
    revision: str | None = None,
    private: bool = False,
    create_pr: bool = False,
    model_card: Mapping[str, Any] | None = None,
    hf_tokenizer_self: bool = False,
    **kwargs: Any,
) -> Pushed:
    """Publish weights that `create_model_from_pretrained` loads; the rest is as in `push_to_hf_hub`.

    A tokenizer with files is always published with the model, so `hf_tokenizer_self` changes nothing.
    """
    model = create_model_from_pretrained(
        model_name,
        pretrained,
        precision,
        image_mean=image_mean,
        image_std=image_std,
        image_interpolation=image_interpolation,
        image_resize_mode=image_resize_mode,
        return_transform=False,
        **kwargs,
    )
    tokenizer = get_tokenizer(model_name, cache_dir=kwargs.get("cache_dir"))
    return push_to_hf_hub(
        model, tokenizer, None, repo_id, commit_message, token, revision, private, create_pr, model_card
    )


def _bundle(model: Any) -> Bundle:
    """The model with its vocabulary, and with the preprocessing that `set_model_preprocess_cfg` last stated."""
    bundle = Bundle.of(model, fetch_vocabulary(model.config.tokenizer))
    stated = {key: value for key, value in model.visual.preprocess_cfg.items() if key not in ("mode", "size")}
    if stated.get("interpolation") == "random":  # of training's transform alone
        del stated["interpolation"]
    stated |= {key: tuple(stated[key]) for key in ("mean", "std") if key in stated}
    preprocess = dataclasses.replace(bundle.config.preprocess, **stated)
    return dataclasses.replace(bundle, config=dataclasses.replace(bundle.config, preprocess=preprocess))


def _readme(repo: str, branch: str, token: str | None) -> Path | None:
    """The README.md that is there; None where there is none, or no such repository or branch.

    Raises:
        DownloadError: whether there is one is not known, so a push might replace it.
    """
    from huggingface_hub import errors

    try:
        return fetch(repo, ["README.md"], revision=branch, token=token)
    except NotInRepository:
        return None
    except DownloadError as error:
        cause: BaseException | None = error
        while cause is not None:
            absent = isinstance(cause, (errors.RepositoryNotFoundError, errors.RevisionNotFoundError))
            if absent and not isinstance(cause, errors.GatedRepoError):
                return None
            cause = cause.__cause__
        raise
