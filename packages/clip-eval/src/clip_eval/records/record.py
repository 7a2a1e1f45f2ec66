"""The result of one model on one task, and how it is written: strict JSON with its companions, whole or not at all.

Beside `<name>.json` stand `<name>.samples.jsonl` (one line per image), `<name>.outcomes.safetensors` (what each query
scored, for paired tests), `<name>.<artefact>.safetensors` and small pictures. What is not here: reading them back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from clip_core.errors import DataError
from clip_eval.features import Excluded
from clip_eval.gallery import save_gallery
from clip_eval.records.facts import json_sha256
from clip_eval.tasks.result import TaskResult
from clip_eval.wds import WdsDataset

__all__ = ["SCHEMA", "Record", "record_name"]

SCHEMA = 1
"""Raised when a field of the record changes its meaning."""


def record_name(
    *, dataset: str, split: str, task: str, model: Mapping[str, Any], precision: Any, settings: Mapping[str, Any]
) -> str:
    """`dataset.split.task.weights.settings`: the file name of a record, without its ending; known before it is made.

    The last two are beginnings of hashes: of the weights, and of whatever else makes another result of them.

    Args:
        model: `model_facts(bundle)`.
        precision: `run_facts(bundle)["precision"]`.
        settings: plain types; whatever the result depends on beside model and data: language, prompts, few-shot counts.
    """
    digest = json_sha256([model["config_sha256"], precision, settings, dataset, split])
    # A split may lie deeper ("test/easy"), a name too ("vtab/cifar10"); a record has no folders.
    place = ".".join(re.sub(r"[^\w.@+-]", "-", part) for part in (dataset, split))
    return f"{place}.{task}.{model['weights_sha256'][:12]}.{digest[:8]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The result of one model on one task."""

    result: TaskResult
    dataset: WdsDataset
    excluded: tuple[Excluded, ...]
    facts: dict[str, Any] = field(repr=False)
    """Model, data set, versions, precision and times, as plain types."""

    @property
    def name(self) -> str:
        """Its `record_name`. Where the facts have no `settings`, the prompts are the settings."""
        return record_name(
            dataset=self.dataset.name,
            split=self.dataset.split,
            task=self.result.task,
            model=self.facts["model"],
            precision=self.facts["precision"],
            settings=self.facts.get("settings", {"templates": self.result.details.get("templates")}),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain types, no NaN: what `save` writes."""
        return {
            "schema": SCHEMA,
            "task": self.result.task,
            "metrics": {name: metric.to_json() for name, metric in self.result.metrics.items()},
            "ties": self.result.ties,
            **self.facts,
            "details": self.result.details,
        }

    def save(self, folder: str | PathLike[str]) -> Path:
        """Writes `<name>.json`, `<name>.samples.jsonl` (one line per image) and a few small pictures for the report.

        Replaces a record of the same weights, configuration, precision and prompts on the same data set, split and
        task. Returns the path of the JSON file;
        raises `DataError` where the folder cannot be written.
        """
        path = Path(folder) / f"{self.name}.json"
        try:
            self._write(path)
        except OSError as error:
            raise DataError(f"{path}: the record cannot be written ({error.strerror or error}).") from error
        return path

    def _write(self, path: Path) -> None:
        base = path.parent
        base.mkdir(parents=True, exist_ok=True)
        # The record is the first to go and the last to come: where one stands, its companions are its own and whole.
        path.unlink(missing_ok=True)
        with (base / f"{self.name}.samples.jsonl").open("w", encoding="utf-8") as file:
            for sample in self.result.samples:
                file.write(json.dumps(asdict(sample), allow_nan=False) + "\n")
        save_gallery(base / f"{self.name}.images", self.dataset, self.result.samples)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        partial.replace(path)
