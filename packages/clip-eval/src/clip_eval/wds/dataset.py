"""One split of a benchmark set as it is in memory: everything but the images, which stay in the shards.

N samples, one image each; C classes; F fields of metadata. What is not here: reading it (`opening`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clip_eval.wds.tars import Sample

__all__ = ["KINDS", "Association", "Kind", "WdsDataset"]

Kind = Literal["classification", "multilabel", "retrieval", "caption_choice", "association"]
"""What is asked of a data set, as `dataset_type.txt` says it; the last two are ours."""

KINDS: tuple[Kind, ...] = ("classification", "multilabel", "retrieval", "caption_choice", "association")


@dataclass(frozen=True, slots=True)
class Association:
    """One riddle of WinoGAViL: a cue word, and which of the candidate images people associate with it."""

    cue: str
    candidates: tuple[int, ...]
    """Places of images in the data set."""
    right: tuple[int, ...]
    """Those of the candidates that belong to the cue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WdsDataset:
    """One split of a benchmark set on disk: all labels and captions, and where each image lies."""

    name: str
    """Name of the folder, or of the repository that it was fetched from."""
    folder: Path
    split: str
    kind: Kind
    samples: tuple[Sample, ...]
    """N samples, one image each, in the order of the shards."""
    classnames: tuple[str, ...] = ()
    """C names; the position is the label, and an empty name is a name. Classification and multilabel only."""
    templates: tuple[str, ...] = ()
    """Prompts with the placeholder `{c}`. Classification and multilabel only."""
    objective: str = ""
    """Which of the questions of FairFace or UTKFace the class names, templates and labels belong to."""
    labels: tuple[int, ...] = ()
    """N labels in [0, C); classification only."""
    present: tuple[tuple[int, ...], ...] = ()
    """N tuples of the labels that an image has, possibly none; multilabel only."""
    captions: tuple[tuple[str, ...], ...] = ()
    """N tuples of at least one caption each; retrieval and caption choice."""
    metadata: tuple[tuple[float, ...], ...] = ()
    """N rows of F values beside the label, as WILDS and the fairness sets have them (`.npy`); or empty."""
    metadata_fields: tuple[str, ...] = ()
    """F names of the columns of `metadata`, where they are known."""
    right_captions: tuple[int, ...] = ()
    """N places in the image's own `captions` of the one that describes it; caption choice only."""
    examples: tuple[str, ...] = ()
    """N names of the example that an image belongs to (Winoground has two images in each); caption choice only."""
    categories: tuple[str, ...] = ()
    """N categories, "" for an image without one; caption choice only."""
    associations: tuple[Association, ...] = ()
    """Cues with their candidate images; association only."""
