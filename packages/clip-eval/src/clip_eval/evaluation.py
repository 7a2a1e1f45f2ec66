"""One call from a model and a data set to a record: strict JSON that says what was measured, on what, and with what.

What is not here: data sets by name (`selection`), many of them in a row (`running`), records as files, the report.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from clip_core import Bundle
from clip_core.errors import ConfigError
from clip_eval.catalogue import Entry
from clip_eval.encoder import Encoder
from clip_eval.features import ImageFeatures
from clip_eval.records import Record, dataset_facts, model_facts, run_facts, split_facts
from clip_eval.tasks import TaskResult, evaluate_retrieval, evaluate_zero_shot
from clip_eval.tasks.association import evaluate_association
from clip_eval.tasks.caption_choice import evaluate_caption_choice
from clip_eval.tasks.captioning import evaluate_captioning
from clip_eval.tasks.linear_probe import evaluate_linear_probe
from clip_eval.tasks.multilabel import evaluate_multilabel
from clip_eval.tasks.zero_shot import Prompts
from clip_eval.wds import Kind, WdsDataset

__all__ = ["TASKS", "Options", "Task", "default_task", "evaluate", "fits", "precision_of", "settings_of"]

_log = logging.getLogger(__name__)

Task = Literal["zero_shot_classification", "retrieval", "linear_probe", "caption_choice", "captioning", "association"]
TASKS: tuple[Task, ...] = get_args(Task)
_DEFAULT: dict[Kind, Task] = {
    "classification": "zero_shot_classification",
    "multilabel": "zero_shot_classification",
    "retrieval": "retrieval",
    "caption_choice": "caption_choice",
    "association": "association",
}
_KINDS: dict[Task, tuple[Kind, ...]] = {
    "zero_shot_classification": ("classification", "multilabel"),
    "retrieval": ("retrieval",),
    "linear_probe": ("classification", "multilabel"),
    "caption_choice": ("caption_choice",),
    "captioning": ("retrieval",),
    "association": ("association",),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a task is asked to do otherwise than by default; each task looks at its own."""

    language: str | None = None
    """Of the words below, or of a retrieval set's captions; None: the data set's own."""
    templates: Prompts | None = None
    """Instead of the data set's own: templates with `{c}`, or each class's prompts in full."""
    classnames: Sequence[str] | None = None
    """Instead of the data set's own, in the order of its labels."""
    allow_duplicate_classnames: bool = False
    """Take two of these that are equal; the record names them, and their images are ties."""
    ks: tuple[int, ...] = (1, 5, 10)
    """Retrieval: how many answers each recall looks at."""
    fewshot_k: int | None = None
    """Linear probe: pictures of each class to train on; None: all."""
    seeds: tuple[int, ...] = (0,)
    """Linear probe: each draws its own few pictures and validation part."""
    validation_share: float = 0.2
    """Linear probe: part of the training split that the weight decay is chosen on, where there is no other."""
    captioning: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Captioning: how captions are generated, see `tasks.captioning`."""


def default_task(dataset: WdsDataset) -> Task:
    """What is asked of a data set of this kind where nothing is said."""
    return _DEFAULT[dataset.kind]


def fits(task: Task, dataset: WdsDataset | Entry) -> bool:
    """Whether `task` can be asked of a data set of this kind."""
    return dataset.kind in _KINDS[task]


def settings_of(
    task: Task,
    dataset: WdsDataset,
    options: Options,
    *,
    train_split: str | None = None,
    validation_split: str | None = None,
) -> dict[str, Any]:
    """What a result depends on beside model and data, as plain types; it names the record.

    The splits are those that a linear probe learns from; no other task looks at them.
    """
    settings: dict[str, Any] = {"language": options.language}
    if task == "zero_shot_classification":
        templates = options.templates if options.templates is not None else dataset.templates
        if isinstance(templates, Mapping):
            settings["prompts"] = {name: list(texts) for name, texts in templates.items()}
        else:
            settings["templates"] = list(templates)
        settings["classnames"] = None if options.classnames is None else list(options.classnames)
    if task == "retrieval":
        settings["ks"] = list(options.ks)
    if task == "linear_probe":
        settings.update(
            fewshot_k=options.fewshot_k,
            seeds=list(options.seeds),
            validation_share=options.validation_share,
            train_split=train_split,
            validation_split=validation_split,
        )
    if task == "captioning":
        settings["captioning"] = dict(options.captioning)
    if dataset.objective:
        settings["objective"] = dataset.objective
    return settings


def precision_of(encoder: Encoder) -> dict[str, Any]:
    """In what the numbers of a record were computed, as plain types; a part of the record's name.

    "deterministic" is there only where it was asked for.
    """
    return {
        "model": str(encoder.bundle.model.dtype).removeprefix("torch."),
        "towers": encoder.precision,
        **({"deterministic": True} if encoder.deterministic else {}),
        "features": "float32" if encoder.store is None else encoder.store.dtype,
        "scores": "exact in float64, features on a grid of 2**-26",
    }


def evaluate(
    model: Bundle | Encoder,
    dataset: WdsDataset,
    *,
    task: Task | None = None,
    options: Options | None = None,
    train: WdsDataset | None = None,
    validation: WdsDataset | None = None,
    entry: Entry | None = None,
    model_name: str = "",
    facts: Mapping[str, Any] | None = None,
    origin: Mapping[str, Any] | None = None,
    **encoding: Any,
) -> Record:
    """Encodes `dataset` and scores one task on it.

    With several processes all of them make the same call and get the same record; the first one saves it.

    Args:
        model: a bundle, which is set to evaluation mode, or an encoder with a store of features, other processes ...
        dataset: what `open_dataset` gives.
        task: None is what the data set is made for.
        options: of the task.
        train: the split that a linear probe is fitted on.
        validation: the split that its weight decay is chosen on; None takes a part of `train`.
        entry: what the catalogue knows of the data set: its main metric and its groups.
        model_name: what to call the model in the record.
        facts: `model_facts(bundle)` where the caller has it already, for several data sets.
        origin: where the data set was fetched from, as `places.origin_of` says it.
        encoding: with a bundle, further arguments of `Encoder`: batch_size, workers, progress, store ...

    Raises:
        ConfigError: a task that cannot be asked of this kind of data set, or without what it needs; options that are
            not allowed.
        DataError: unreadable shards, features or scores that are not finite.
    """
    start = time.perf_counter()
    encoder = _encoder(model, encoding)
    chosen = task or default_task(dataset)
    options = options or Options()
    _check(chosen, dataset, train)
    images = encoder.images(dataset)
    # The splits that a linear probe learns from; no other task looks at them.
    others = {"train": train, "validation": validation} if chosen == "linear_probe" else {}
    learnt = {role: (split, encoder.images(split)) for role, split in others.items() if split is not None}
    result = _run(chosen, encoder, dataset, images, options, learnt, entry)
    total = time.perf_counter() - start
    for split, found in ((dataset, images), *learnt.values()):
        if found.excluded:
            _log.warning(
                "%s, %s: %d of %d images left out", split.name, split.split, len(found.excluded), len(split.samples)
            )
    return Record(
        result=result,
        dataset=dataset,
        excluded=images.excluded,
        facts={
            "model": {"name": model_name, **(facts or model_facts(encoder.bundle))},
            "dataset": {
                **dataset_facts(dataset, images, language=options.language),
                **({"learnt_from": {role: split_facts(*pair) for role, pair in learnt.items()}} if learnt else {}),
                **(origin or {}),
            },
            **run_facts(encoder.bundle, processes=encoder.ranks.size, store=_store_facts(encoder, images)),
            "precision": precision_of(encoder),
            "settings": settings_of(
                chosen,
                dataset,
                options,
                train_split=None if train is None else train.split,
                validation_split=None if validation is None else validation.split,
            ),
            "batch_size": encoder.batch_size,
            "made_with": [dict(made) for made in images.made_with],
            "seconds": {
                "decode_wait": images.seconds_decode,
                "encode_images": images.seconds_encode,
                "store": images.seconds_store,
                "encode_texts": result.seconds_texts,
                "metrics": result.seconds_metrics,
                "total": total,
            },
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )


def _encoder(model: Bundle | Encoder, encoding: Mapping[str, Any]) -> Encoder:
    if isinstance(model, Bundle):
        model.model.eval()
        return Encoder(bundle=model, **encoding)
    if encoding:
        raise ConfigError(f"{', '.join(encoding)}: an encoder has these already; give them where it is made.")
    return model


def _check(task: Task, dataset: WdsDataset, train: WdsDataset | None) -> None:
    if task not in _KINDS:
        raise ConfigError(f"task is {task!r}; allowed: {', '.join(TASKS)}.")
    if dataset.kind not in _KINDS[task]:
        fitting = ", ".join(name for name, kinds in _KINDS.items() if dataset.kind in kinds)
        raise ConfigError(f"{dataset.name} is a {dataset.kind} set; task is {task!r}, allowed for it: {fitting}.")
    if task == "linear_probe" and train is None:
        raise ConfigError(f"A linear probe of {dataset.name} needs a split to train on, and there is none.")


def _run(
    task: Task,
    encoder: Encoder,
    dataset: WdsDataset,
    images: ImageFeatures,
    options: Options,
    learnt: Mapping[str, tuple[WdsDataset, ImageFeatures]],
    entry: Entry | None,
) -> TaskResult:
    words: dict[str, Any] = {
        "templates": options.templates,
        "classnames": options.classnames,
        "allow_duplicate_classnames": options.allow_duplicate_classnames,
    }
    if task == "zero_shot_classification" and dataset.kind == "multilabel":
        return evaluate_multilabel(encoder, dataset, images, **words)
    if task == "zero_shot_classification":
        grouped: dict[str, Any] = {} if entry is None else {"groups": entry.groups, "main_metric": entry.main_metric}
        return evaluate_zero_shot(encoder, dataset, images, **words, **grouped)
    if task == "linear_probe":
        train, train_images = learnt["train"]
        validation, validation_images = learnt.get("validation", (None, None))
        return evaluate_linear_probe(
            encoder,
            dataset,
            images,
            train=train,
            train_images=train_images,
            validation=validation,
            validation_images=validation_images,
            fewshot_k=options.fewshot_k,
            seeds=options.seeds,
            validation_share=options.validation_share,
        )
    if task == "retrieval":
        return evaluate_retrieval(encoder, dataset, images, ks=options.ks, language=options.language)
    if task == "caption_choice":
        return evaluate_caption_choice(encoder, dataset, images)
    if task == "association":
        return evaluate_association(encoder, dataset, images)
    if task == "captioning":
        return evaluate_captioning(encoder, dataset, images, language=options.language, **options.captioning)
    raise ConfigError(f"task is {task!r}; allowed: {', '.join(TASKS)}.")


def _store_facts(encoder: Encoder, images: ImageFeatures) -> dict[str, int] | None:
    if encoder.store is None:
        return None
    return {"images": len(images.kept) + len(images.excluded), "found": images.found}
