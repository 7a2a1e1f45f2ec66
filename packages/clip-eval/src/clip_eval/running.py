"""Many evaluations in a row: every data set, task and language that was asked for, with one model.

The model's images of a data set are encoded once, whatever is asked about them. On several processes all do the same
and the first writes. What is not here: words of a command line (`selection`, `commands`), one evaluation
(`evaluation`).
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from clip_core.errors import ClipError, ConfigError, DataError, listed
from clip_eval.catalogue import Entry
from clip_eval.encoder import Encoder
from clip_eval.evaluation import Options, Task, default_task, evaluate, fits, precision_of, settings_of
from clip_eval.languages import missing_language
from clip_eval.places import fetch_dataset, origin_of
from clip_eval.prompts import languages_for, prompts_for
from clip_eval.records import (
    Record,
    SavedRecord,
    contents_sha256,
    find_record,
    model_facts,
    record_name,
    shards_sha256,
)
from clip_eval.selection import Selected
from clip_eval.wds import WdsDataset, check_size, open_dataset
from clip_eval.wds.text_files import objectives_in

__all__ = ["LanguageMissing", "Wanted", "objectives_of", "open_selected", "run"]

_log = logging.getLogger(__name__)

_WITH_CLASSES = ("classification", "multilabel")


class LanguageMissing(ConfigError):
    """A language that none of the data sets has."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be evaluated on each data set."""

    tasks: tuple[Task, ...] = ()
    """Those that do not fit a data set are left out for it; none: what each data set is made for."""
    languages: tuple[str | None, ...] = (None,)
    """None: the data set's own words. A data set without one of them is left out for it, which the log says."""
    options: Options = dataclasses.field(default_factory=Options)
    """`language` is set from the above, and where that is given, so are the class names and templates."""
    words: str | PathLike[str] | None = None
    """A folder with class names and templates of one's own, see `prompts_for`."""
    split: str = "test"
    train_split: str = "train"
    validation_split: str | None = None
    allow_duplicate_classes: bool = False
    any_size: bool = False
    """Accept another number of samples than the catalogue has."""
    cache_dir: str | PathLike[str] | None = None


def run(
    encoder: Encoder,
    datasets: Sequence[Selected],
    wanted: Wanted,
    *,
    model_name: str,
    existing: str | PathLike[str] | None = None,
) -> Iterator[tuple[Selected, Record | SavedRecord]]:
    """A record for each data set, task and language, in this order, as soon as it is made.

    Args:
        encoder: with the model, and whatever saves work.
        datasets: what `select` found.
        wanted: what to ask of each.
        model_name: for the records.
        existing: a folder of records; one that is there already is given back instead of made.

    Raises:
        ConfigError: a task fits none of the data sets, or as `evaluate`.
        LanguageMissing: none of the data sets has a language; raised after what there is in the others.
        DataError, DownloadError: a data set cannot be fetched or read.
    """
    facts = model_facts(encoder.bundle)
    asked = False
    spoken: set[str | None] = {None}
    missing: dict[str, str] = {}
    for selected in datasets:
        for dataset in _objectives(selected, wanted, encoder):
            for task in wanted.tasks or (default_task(dataset),):
                if not fits(task, dataset):
                    _log.info("%s is a %s set: %s is left out", dataset.name, dataset.kind, task)
                    continue
                asked = True
                for language in wanted.languages:
                    lacks = encoder.ranks.text_from_first(missing_language(dataset, language, words=wanted.words))
                    if language is not None and lacks:
                        missing.setdefault(language, lacks)
                        _log.warning("%s is left out in %r: %s", dataset.name, language, lacks)
                        continue
                    spoken.add(language)
                    options = _options(wanted, selected, dataset, language)
                    found = _find(existing, encoder, selected, dataset, task, options, wanted, facts)
                    # What the first process sees counts for all: they have to make the same calls.
                    if not encoder.ranks.text_from_first("" if found is None else "there"):
                        yield selected, _evaluate(encoder, selected, dataset, task, options, wanted, model_name, facts)
                    elif found is not None:
                        yield selected, found
    if wanted.tasks and not asked:
        raise ConfigError(
            f"--task {' '.join(wanted.tasks)} cannot be asked of {listed([each.name for each in datasets])}; leave it "
            "out to ask what each data set is made for."
        )
    for language, lacks in missing.items():
        if language not in spoken:
            several = len(datasets) > 1
            raise LanguageMissing(f"--language {language}: no data set has it. {lacks}" if several else lacks)


def open_selected(
    selected: Selected, wanted: Wanted, *, split: str | None = None, progress: bool = False, objective: str = ""
) -> WdsDataset:
    """The data set on this machine, fetched where it is not, opened, and compared with what the catalogue says.

    Raises:
        DataError, DownloadError: it cannot be fetched or read, or has another size than the catalogue says.
    """
    split = split or wanted.split
    folder = fetch_dataset(selected.address, split=split, cache_dir=wanted.cache_dir, progress=progress)
    entry = selected.entry
    words: dict[str, Any] = {}
    if entry is not None and entry.kind in _WITH_CLASSES:
        own = prompts_for(entry.name)
        # The folder's own words go first, as in CLIP_benchmark; the package's fill in for those that it lacks.
        if own.classnames is not None and not (folder / "classnames.txt").exists():
            words["classnames"] = own.classnames
        if own.templates is not None and not (folder / "zeroshot_classification_templates.txt").exists():
            words["templates"] = own.templates
    dataset = open_dataset(
        folder,
        split,
        name=selected.name,
        objective=objective,
        metadata_fields=entry.groups.fields if entry is not None and entry.groups is not None else (),
        # Published sets are scored with the names that they have, ImageNet's two pairs of twins among them.
        allow_duplicate_classnames=wanted.allow_duplicate_classes or entry is not None,
        **words,
    )
    if entry is not None:
        _check_kind(dataset, entry)
        # The class names of a set with several objectives are counted for each of them.
        if split == "test" and not wanted.any_size and entry.size is not None:
            check_size(dataset, entry.size, classes=None if dataset.objective else entry.classes)
    return dataset


def _check_kind(dataset: WdsDataset, entry: Entry) -> None:
    if dataset.kind != entry.kind:
        raise DataError(
            f"{dataset.folder}: {dataset.name} is a {entry.kind} set where its scores were published, and a "
            f"{dataset.kind} set here. Check that it is this data set, or call its folder otherwise."
        )


def objectives_of(selected: Selected, folder: Callable[[], Path]) -> tuple[str, ...]:
    """The questions that the class names of a set hold (race, gender ... of FairFace), each evaluated apart.

    `("",)` for a set that asks one question only. `folder` is called for a set that the catalogue does not know.
    """
    entry = selected.entry
    if entry is None:
        return objectives_in(folder()) or ("",)
    # "toxic" asks a question that no column of the metadata answers.
    return tuple(name for name in entry.objectives if entry.groups and name in entry.groups.fields) or ("",)


def _objectives(selected: Selected, wanted: Wanted, encoder: Encoder) -> Iterator[WdsDataset]:
    """The data set, once for each of its questions."""
    fetched = functools.partial(encoder.ranks.together, functools.partial(_fetch, selected, wanted, encoder))
    for objective in objectives_of(selected, fetched):
        yield encoder.ranks.together(
            functools.partial(open_selected, selected, wanted, progress=encoder.progress, objective=objective)
        )


def _fetch(selected: Selected, wanted: Wanted, encoder: Encoder) -> Path:
    return fetch_dataset(selected.address, split=wanted.split, cache_dir=wanted.cache_dir, progress=encoder.progress)


def _options(wanted: Wanted, selected: Selected, dataset: WdsDataset, language: str | None) -> Options:
    options = dataclasses.replace(wanted.options, language=language)
    if dataset.kind not in _WITH_CLASSES or (language is None and wanted.words is None):
        return options
    language = language or "en"
    words = prompts_for(selected.name, language, folder=wanted.words)
    # Of the words that come with the package it is known that some names occur twice, and the record names them.
    known = language in languages_for(selected.name) and words.classnames == prompts_for(selected.name, language)[0]
    return dataclasses.replace(
        options,
        classnames=options.classnames if words.classnames is None else words.classnames,
        templates=options.templates if words.templates is None else words.templates,
        allow_duplicate_classnames=known or wanted.allow_duplicate_classes,
    )


def _find(
    folder: str | PathLike[str] | None,
    encoder: Encoder,
    selected: Selected,
    dataset: WdsDataset,
    task: Task,
    options: Options,
    wanted: Wanted,
    facts: Mapping[str, Any],
) -> SavedRecord | None:
    """The record that this evaluation would write, where `folder` has it."""
    if folder is None:
        return None
    name = record_name(
        dataset=dataset.name,
        split=dataset.split,
        task=task,
        model=facts,
        precision=precision_of(encoder),
        settings=settings_of(
            task, dataset, options, train_split=wanted.train_split, validation_split=wanted.validation_split
        ),
    )
    found = find_record(folder, name)
    # The name does not know the data: a set may have been built again since.
    if found is None or not _same_data(found.data["dataset"], dataset, options.language):
        return None
    for role, split in (("train", wanted.train_split), ("validation", wanted.validation_split)):
        stated = (found.data["dataset"].get("learnt_from") or {}).get(role)
        if stated is None or split is None:
            continue
        try:
            learnt = open_selected(selected, wanted, split=split, objective=dataset.objective)
        except ClipError:
            return None  # the evaluation says it, in all processes alike
        if not _same_data(stated, learnt, None):
            return None
    return found


def _same_data(stated: Mapping[str, Any], dataset: WdsDataset, language: str | None) -> bool:
    """Whether a record's facts are of this split as it is here; records may lack the hash of the contents."""
    if stated["shards_sha256"] != shards_sha256(dataset):
        return False
    contents = stated.get("contents_sha256")
    return contents is None or contents == contents_sha256(dataset, language)


def _evaluate(
    encoder: Encoder,
    selected: Selected,
    dataset: WdsDataset,
    task: Task,
    options: Options,
    wanted: Wanted,
    model_name: str,
    facts: Mapping[str, Any],
) -> Record:
    def other(split: str | None) -> WdsDataset | None:
        if task != "linear_probe" or split is None:
            return None
        return encoder.ranks.together(
            functools.partial(
                open_selected,
                selected,
                wanted,
                split=split,
                progress=encoder.progress,
                objective=dataset.objective,
            )
        )

    return evaluate(
        encoder,
        dataset,
        task=task,
        options=options,
        train=other(wanted.train_split),
        validation=other(wanted.validation_split),
        entry=selected.entry,
        model_name=model_name,
        facts=facts,
        origin=origin_of(selected.address, dataset.folder),
    )
