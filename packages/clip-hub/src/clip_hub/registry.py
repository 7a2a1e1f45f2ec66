"""Published weights by name: which there are, and the row of facts behind one.

The rows are in `tags/`, one file per family of architectures. A row is found by model and tag; the "-quickgelu" name
of a model finds the same row where the weights have that activation. What this room leaves out: downloading.
"""

from __future__ import annotations

import functools
from typing import NoReturn

from clip_core import UnknownModel, get_config, list_models
from clip_core.errors import CheckpointMismatch, listed, nearest
from clip_core.presets import split_name
from clip_hub.tag import Tag

__all__ = [
    "Tag",
    "all_tags",
    "find",
    "find_name",
    "list_models_with",
    "list_pretrained",
    "list_tags",
    "models_with",
    "rows_of",
]


def list_pretrained() -> list[tuple[str, str]]:
    """Every (model, tag) that `load` and `create_model` take, by model, then in the order of its table."""
    pairs = [(name, tag.tag) for tag in all_tags() for name in tag.names]
    return sorted(pairs, key=lambda pair: pair[0].lower())


def list_tags(model: str) -> list[str]:
    """The tags of architecture `model`; empty where no weights of it are known.

    Raises:
        UnknownModel: no such architecture; the nearest are listed.
    """
    get_config(model)
    base, quick_gelu = split_name(model)
    rows = (row for row in all_tags() if row.model == base)
    return [row.tag for row in rows if not quick_gelu or row.activation == "quick_gelu"]


def list_models_with(tag: str) -> list[str]:
    """The architectures that have weights called `tag`.

    Raises:
        UnknownModel: none has; the nearest tags are listed.
    """
    found = models_with(tag)
    if not found:
        known = dict.fromkeys(row.tag for row in all_tags())
        raise UnknownModel.among("pretrained tag", tag, known, "clip_hub.list_pretrained() lists every pair.")
    return found


def models_with(tag: str) -> list[str]:
    """As `list_models_with`; empty where none has."""
    return [model for model, known in list_pretrained() if known == _clean(tag)]


def rows_of(repo: str) -> list[Tag]:
    """The rows whose weights are in the repository "org/name"; most have one, and a stranger's has none."""
    return [row for row in all_tags() if row.repo == repo]


def find(model: str, tag: str) -> Tag:
    """The row of `model`, with or without "-quickgelu", and `tag`, in which case does not matter, nor "-" for "_".

    Raises:
        UnknownModel: no such architecture, or no weights of it under that tag; the nearest are listed.
        CheckpointMismatch: the name asks for OpenAI's activation and the weights have the ordinary one.
    """
    base, quick_gelu = split_name(model)
    if base not in list_models():
        _raise_unknown(model, tag)
    rows = {row.tag: row for row in all_tags() if row.model == base}
    row = rows.get(_clean(tag))
    if row is None:
        others = models_with(tag)
        elsewhere = f" {tag!r} is a tag of {listed(others)}." if others else ""
        if not rows:
            raise UnknownModel(f"No published weights of {base} are known, so also none called {tag!r}.{elsewhere}")
        advice = f"clip_hub.list_tags({base!r}) lists all {len(rows)} of this architecture.{elsewhere}"
        raise UnknownModel.among(f"pretrained tag of {model}", tag, rows, advice)
    if quick_gelu and row.activation != "quick_gelu":
        raise CheckpointMismatch(
            f"{tag!r} was trained with activation {row.activation!r} and {model!r} asks for 'quick_gelu', which would "
            f"give wrong features. Use the name {row.model!r}."
        )
    return row


def find_name(name: str) -> Tag:
    """The row of `name`, "model:tag" as in "ViT-B-32:laion2b_s34b_b79k".

    Raises:
        UnknownModel: as `find`; or the tag is missing, and the message lists the tags of the model.
        CheckpointMismatch: as `find`.
    """
    model, _, tag = name.partition(":")
    if tag:
        return find(model, tag)
    if split_name(model)[0] not in list_models():
        _raise_unknown(model, "")
    tags = list_tags(model)
    known = f"its tags are {listed(tags)}" if tags else "no published weights of it are known here"
    raise UnknownModel(
        f"{name!r} names an architecture without weights: write model:tag as in 'ViT-B-32:laion2b_s34b_b79k'; {known}. "
        "clip_hub.list_pretrained() lists every pair."
    )


@functools.cache
def all_tags() -> tuple[Tag, ...]:
    """Every row, each once, in the order of its family's file."""
    from clip_hub.tags import (
        clipa,
        coca,
        convnext,
        eva,
        hf,
        mobileclip,
        pe,
        resnet,
        siglip,
        siglip2,
        vit_b_16,
        vit_b_32,
        vit_h_g,
        vit_l_14,
        vitamin,
        worldwide,
    )

    return (
        *vit_b_32.TAGS,
        *vit_b_16.TAGS,
        *vit_l_14.TAGS,
        *vit_h_g.TAGS,
        *worldwide.TAGS,
        *clipa.TAGS,
        *siglip.TAGS,
        *siglip2.TAGS,
        *pe.TAGS,
        *eva.TAGS,
        *vitamin.TAGS,
        *mobileclip.TAGS,
        *convnext.TAGS,
        *resnet.TAGS,
        *hf.TAGS,
        *coca.TAGS,
    )


def _raise_unknown(model: str, tag: str) -> NoReturn:
    """Raise the error for an unknown architecture, with whole names where only its case is wrong."""
    same = next((name for name in list_models() if name.lower() == model.replace("/", "-").lower()), None)
    tags = list_tags(same) if same and tag else []
    close = [_clean(tag)] if _clean(tag) in tags else nearest(tag, tags)
    if same and close:
        guess = ", ".join(f"{same}:{found}" for found in close)
        raise UnknownModel(f"Unknown model {model!r}. Did you mean {guess}? Case matters in names of models.")
    get_config(model)
    raise AssertionError(f"{model} is known")


def _clean(tag: str) -> str:
    """As tags are spelled: lower case, underscores."""
    return tag.lower().replace("-", "_")
