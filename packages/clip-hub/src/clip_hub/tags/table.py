"""How the files of this folder state their rows: a table of what differs, and once what its rows have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from clip_hub.tag import Score, Tag

__all__ = [
    "COPIED",
    "DFN_LICENCE",
    "METACLIP",
    "OPENAI",
    "PAGE",
    "RELEASE",
    "Row",
    "card",
    "imagenet",
    "rows",
    "with_facts",
]

Row = tuple[str, str, str, str | None, float | None, float | None, float | None]
"""Model, tag, repository, training data, samples seen in 10^9, ImageNet top-1, mean of the 38 sets (both 0 to 1)."""

RELEASE = "https://github.com/mlfoundations/open_clip/releases/download/v0.2-weights/"
OPENAI = "https://openaipublic.azureedge.net/clip/models/"
METACLIP = "https://dl.fbaipublicfiles.com/MMPT/metaclip/"

PAGE = "OpenCLIP's page of pretrained models"

# Notes that rows of several files have.
COPIED = "timm marks its copy of OpenAI's weights Apache 2.0; OpenAI's own release, the source, is MIT."
DFN_LICENCE = "The licence is what timm states; later cards on the Hub name Apple's research licence: read the card."


def card(repo: str) -> str:
    """The name of a model card as a source."""
    return f"model card of {repo}"


def rows(table: Sequence[Row], **common: Any) -> tuple[Tag, ...]:
    """The rows of `table`; `common` are fields that all of them have."""
    return tuple(
        Tag(
            model=model,
            tag=tag,
            repo=repo,
            data=data,
            samples_seen=None if billions is None else round(billions * 1e9),
            imagenet=top1,
            average_38=average,
            **common,
        )
        for model, tag, repo, data, billions, top1, average in table
    )


def with_facts(
    tags: Sequence[Tag],
    *,
    urls: Mapping[str, str] | None = None,
    scores: Mapping[str, Sequence[Score]] | None = None,
    notes: Mapping[str, str] | None = None,
) -> tuple[Tag, ...]:
    """`tags` with what few of them have, by "model:tag"; a name that no row has is a mistake."""
    changes: dict[str, dict[str, Any]] = {tag.name: {} for tag in tags}
    for field, facts in (("url", urls or {}), ("scores", scores or {}), ("note", notes or {})):
        for name, value in facts.items():
            changes[name][field] = tuple(value) if field == "scores" else value
    return tuple(dataclasses.replace(tag, **changes[tag.name]) for tag in tags)


def imagenet(value: float, source: str, dataset: str = "ImageNet-1k") -> Score:
    """A published zero-shot top-1 accuracy, 0 to 1."""
    return Score(dataset=dataset, metric="zero-shot top-1", value=value, source=source)
