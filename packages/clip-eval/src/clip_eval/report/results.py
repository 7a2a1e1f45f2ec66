"""Records put in order for reading: which models there are, and which records may be compared.

Two records stand side by side only if data set, split, shards, task and settings (prompts, language, shots) are the
same. What is not here: samples and pictures, what single tasks add.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clip_core.errors import DataError
from clip_eval.catalogue import Entry, lookup
from clip_eval.records import SavedRecord
from clip_eval.records.rows import main_metrics
from clip_eval.report.chance import chance_level
from clip_eval.report.numbers import Number, read_number

__all__ = ["TASKS", "Board", "Model", "Result", "boards", "damaged", "models_of", "read_results"]

TASKS = {
    "zero_shot_classification": "zero-shot classification",
    "multilabel": "multilabel classification",
    "retrieval": "retrieval",
    "linear_probe": "linear probe",
    "caption_choice": "caption choice",
    "captioning": "captioning",
    "association": "association",
}
"""Tasks in words, in the order of the page: classification first, because it says what the classes are."""


@dataclass(frozen=True, slots=True)
class Model:
    """One set of weights under one configuration."""

    label: str
    facts: dict[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from another."""
        return _identity(self.facts)


@dataclass(frozen=True, slots=True)
class Result:
    """One record."""

    record: SavedRecord
    model: Model
    numbers: dict[str, Number]

    @property
    def path(self) -> Path:
        """Its JSON file."""
        return self.record.path

    @property
    def data(self) -> dict[str, Any]:
        """Its contents."""
        return self.record.data

    @property
    def task(self) -> str:
        """As in the record."""
        return str(self.data["task"])

    @property
    def details(self) -> dict[str, Any]:
        """What the task adds."""
        return dict(self.data["details"])

    @property
    def main(self) -> list[Number]:
        """The numbers that stand for the record: what its data set states, or what the task is known by."""
        about = self.data["dataset"].get("about") or {}
        stated = self.details.get("main_metric") or about.get("main_metric")
        if stated in self.numbers:
            return [self.numbers[stated]]
        return [self.numbers[name] for name in main_metrics(list(self.numbers), self.task, self.entry)]

    @property
    def entry(self) -> Entry | None:
        """What the catalogue knows of the data set."""
        return lookup(str(self.data["dataset"]["name"]))


@dataclass(frozen=True, slots=True)
class Board:
    """One task on one data set, and what every model made of it."""

    anchor: str
    title: str
    results: list[Result]

    @property
    def task(self) -> str:
        """As in the records."""
        return self.results[0].task

    @property
    def task_name(self) -> str:
        """In words."""
        return TASKS.get(self.task, self.task.replace("_", " "))

    @property
    def dataset(self) -> dict[str, Any]:
        """What the records state of the data."""
        return dict(self.results[0].data["dataset"])

    @property
    def about(self) -> dict[str, Any]:
        """What the data set says of itself."""
        blank: dict[str, Any] = {"title": None, "description": None, "source": None, "licence": None, "notes": []}
        return {**blank, **(self.dataset.get("about") or {})}

    @property
    def main(self) -> list[str]:
        """The metrics of the summary."""
        return list(dict.fromkeys(number.name for result in self.results for number in result.main))

    @property
    def metrics(self) -> list[str]:
        """All metrics that any of the models has, the main ones first."""
        return list(dict.fromkeys([*self.main, *(name for result in self.results for name in result.numbers)]))

    def of(self, model: Model) -> Result | None:
        """The record of one model."""
        return next((result for result in self.results if result.model.key == model.key), None)


@contextmanager
def damaged(path: Path) -> Iterator[None]:
    """Turns what goes wrong with the contents of a record into a `DataError` that names its file."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{path}: a damaged evaluation record ({type(error).__name__}: {error}). Run the evaluation again."
        ) from error


def read_results(records: Sequence[SavedRecord]) -> list[Result]:
    """The records with their numbers, every model with a label of its own; `DataError` for a damaged one."""
    models: dict[tuple[str, str], dict[str, Any]] = {}
    for path, data in records:
        with damaged(path):
            models.setdefault(_identity(data["model"]), _model_facts(data["model"]))
    labels = _labels(models)
    results = []
    for record in records:
        path, data = record
        with damaged(path):
            _check(data)
            key = _identity(data["model"])
            numbers = {
                name: read_number(name, value, chance_level(name, data)) for name, value in data["metrics"].items()
            }
            if not numbers:
                raise ValueError("it holds no number")
            results.append(Result(record, Model(labels[key], models[key]), numbers))
    return results


def models_of(results: Sequence[Result]) -> list[Model]:
    """Each model once, by its label."""
    return sorted({result.model.key: result.model for result in results}.values(), key=lambda model: model.label)


def boards(results: Sequence[Result]) -> list[Board]:
    """What may be compared with one another, tasks in the order of `TASKS`, data sets by name."""
    groups: dict[tuple[str, str, str, str, str], list[Result]] = {}
    for result in results:
        groups.setdefault(_comparable(result), []).append(result)
    order = list(TASKS)
    ordered = sorted(groups, key=lambda key: (order.index(key[0]) if key[0] in order else len(order), key))
    plain = [_title(groups[key][0]) for key in ordered]
    found = []
    for place, (key, title) in enumerate(zip(ordered, plain, strict=True), start=1):
        group = groups[key]
        # Of one model there may be several records on one data set; then split and settings tell them apart.
        alike = [other for other, name in zip(ordered, plain, strict=True) if name == title and other[0] == key[0]]
        task = TASKS.get(key[0], key[0].replace("_", " "))
        if len(alike) == 1 and plain.count(title) > 1 and key[0] != "zero_shot_classification":
            title = f"{title}, {task}"
        if len(alike) > 1:
            title = f"{title} (split {key[2]}, settings {group[0].path.stem.rpartition('.')[2]})"
        found.append(Board(f"set-{place}", title, sorted(group, key=lambda result: result.model.label)))
    return found


def _comparable(result: Result) -> tuple[str, str, str, str, str]:
    data, dataset = result.data, result.data["dataset"]
    settings = data.get("settings") or {"templates": result.details.get("templates")}
    canonical = json.dumps(settings, sort_keys=True)
    return result.task, str(dataset["name"]), str(dataset["split"]), str(dataset.get("shards_sha256")), canonical


def _title(result: Result) -> str:
    dataset = result.data["dataset"]
    known = result.entry
    return str((dataset.get("about") or {}).get("title") or (known.title if known else dataset["name"]))


def _identity(model: dict[str, Any]) -> tuple[str, str]:
    return str(model["weights_sha256"]), str(model["config_sha256"])


def _model_facts(model: dict[str, Any]) -> dict[str, Any]:
    """The facts that the page shows, checked."""
    return {**model, "parameters": int(model["parameters"]), "logit_scale": float(model["logit_scale"])}


def _labels(models: dict[tuple[str, str], dict[str, Any]]) -> dict[tuple[str, str], str]:
    """Names; with the beginning of the weights' hash where two models share one."""
    names = {key: str(facts.get("name") or key[0][:12]) for key, facts in models.items()}
    shared = [name for name in names.values() if list(names.values()).count(name) > 1]
    return {key: f"{name} ({key[0][:8]})" if name in shared else name for key, name in names.items()}


def _check(data: dict[str, Any]) -> None:
    """The shape that the rest of the page relies on; what it shows as text may be anything."""
    for key in ("model", "dataset", "details", "metrics", "precision", "versions", "seconds"):
        if not isinstance(data[key], dict):
            raise ValueError(f"{key} is {type(data[key]).__name__}, not an object")
    dataset = data["dataset"]
    for key in ("samples", "evaluated"):
        dataset[key] = int(dataset[key])
    dataset["excluded"]["count"] = int(dataset["excluded"]["count"])
    data["seconds"] = {name: float(value) for name, value in data["seconds"].items()}
    data["ties"] = {name: float(value) for name, value in (data.get("ties") or {}).items()}
    about = dataset.get("about") or {}
    if not isinstance(about, dict) or not isinstance(about.get("notes", []), list):
        raise ValueError("about is not an object with a list of notes")
