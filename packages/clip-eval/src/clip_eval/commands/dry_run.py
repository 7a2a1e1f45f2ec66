"""`clip-eval run --dry-run`: what would be read, how much of it there is, and how long encoding would take.

No shard and no weights are fetched for it.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clip_eval.columns import aligned
from clip_eval.commands.encoding import make_encoder, model_label

if TYPE_CHECKING:
    from clip_eval.running import Wanted
    from clip_eval.selection import Selected
    from clip_eval.wds import WdsDataset

__all__ = ["describe"]

_HEAD = ("data set", "kind", "images", "contents", "size", "to fetch", "from")
_LEARNT = "for the linear probe"


def describe(datasets: Sequence[Selected], wanted: Wanted, arguments: argparse.Namespace) -> list[str]:
    """The lines of a table of data sets, the splits that a probe learns from beneath each, and a line for each model.

    Raises `DataError` or `DownloadError` where a data set, or a split of it, is not there.
    """
    rows: list[tuple[str, ...]] = [_HEAD]
    here: list[WdsDataset] = []
    for selected in datasets:
        found, tested = _rows(selected, wanted, wanted.split)
        parts = [(found, tested), *(_rows(selected, wanted, split) for split in _learnt_from(selected, wanted, tested))]
        for lines, dataset in parts:
            rows += lines
            here += [] if dataset is None else [dataset]
    return [*aligned(rows, right=(2, 4, 5)), *(_outlook(model, here, arguments) for model in arguments.model)]


def _learnt_from(selected: Selected, wanted: Wanted, dataset: WdsDataset | None) -> list[str]:
    """The further splits that are read of a data set: those of a linear probe, where one can be asked of it."""
    from clip_eval.evaluation import fits

    known = dataset or selected.entry
    if "linear_probe" not in wanted.tasks or (known is not None and not fits("linear_probe", known)):
        return []
    splits = (wanted.train_split, wanted.validation_split)
    return [split for split in dict.fromkeys(splits) if split and split != wanted.split]


def _rows(selected: Selected, wanted: Wanted, split: str) -> tuple[list[tuple[str, ...]], WdsDataset | None]:
    """A line for each question that is asked of a split, and the split itself where it is on this machine."""
    from clip_eval.places import describe_dataset
    from clip_eval.places.address import without_secrets
    from clip_eval.running import objectives_of, open_selected

    facts = describe_dataset(selected.address, split=split, cache_dir=wanted.cache_dir)
    left = facts.bytes - facts.bytes_cached
    costs = (
        _megabytes(facts.bytes),
        "-" if left == 0 else _megabytes(left),
        without_secrets(selected.address),
    )
    tested = split == wanted.split
    title = selected.name if tested else f"{selected.name}, {split}"
    if facts.folder is None:
        return [(title, *_expected(selected, facts.samples, split if tested else ""), *costs)], None
    names = objectives_of(selected, functools.partial(Path, facts.folder))
    if not tested:
        learnt = open_selected(selected, wanted, split=split, objective=names[0])
        return [(title, learnt.kind, f"{len(learnt.samples):,}", _LEARNT, *costs)], learnt
    asked = [open_selected(selected, wanted, objective=name) for name in names]
    rows: list[tuple[str, ...]] = []
    for number, dataset in enumerate(asked):
        named = f"{title} ({dataset.objective})" if dataset.objective else title
        rows.append((named, *_contents(dataset), *(costs if number == 0 else ("", "", ""))))
    return rows, asked[0]  # the others ask about the same images


def _contents(dataset: WdsDataset) -> tuple[str, str, str]:
    """Kind, images and what belongs to them, of a data set that is here."""
    captions = f"{sum(map(len, dataset.captions)):,} captions"
    contents = {
        "retrieval": captions,
        "caption_choice": captions,
        "association": f"{len(dataset.associations):,} riddles",
    }.get(dataset.kind, f"{len(dataset.classnames):,} classes, {len(dataset.templates)} prompts each")
    return dataset.kind, f"{len(dataset.samples):,}", contents


def _expected(selected: Selected, samples: int | None, split: str) -> tuple[str, str, str]:
    """The same of a split that would be fetched, as far as it is known; "" stands for what a probe learns from."""
    entry = selected.entry
    kind = "?" if entry is None else entry.kind
    if not split:
        return kind, "?" if samples is None else f"{samples:,}", _LEARNT
    count = samples if samples is not None or entry is None or split != "test" else entry.size
    contents = f"{entry.classes:,} classes" if entry is not None and entry.classes is not None else "?"
    return kind, "?" if count is None else f"{count:,}", contents


def _outlook(model: str, here: Sequence[WdsDataset], arguments: argparse.Namespace) -> str:
    """How long the images that are on this machine would take."""
    from clip_eval.processes import Ranks

    if not Path(model).exists():
        return f"{model}: no folder here; weights are not fetched for a dry run, so no time is estimated"
    encoder = make_encoder(model, arguments, Ranks())
    seconds, images, found = 0.0, 0, 0
    for dataset in here:
        outlook = encoder.describe(dataset)
        images, found = images + outlook.images, found + outlook.images_found
        if outlook.images_found < outlook.images:
            seconds += encoder.estimate_seconds(dataset) * (1 - outlook.images_found / outlook.images)
    device = encoder.bundle.model.logit_scale.device
    return (
        f"{model_label(model)}: of {images:,} images on this machine {found:,} were encoded before; the others take "
        f"about {_duration(seconds)} on {device}"
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count < 1e9 else f"{count / 1e9:,.1f} GB"
