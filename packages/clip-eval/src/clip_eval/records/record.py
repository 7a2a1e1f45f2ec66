"""The result of one model on one task, and how it is written: strict JSON with its companions, whole or not at all.

Beside `<name>.json` stand `<name>.samples.jsonl` (one line per image), `<name>.outcomes.safetensors` (what each query
scored, for paired tests), `<name>.<artefact>.safetensors` and small pictures. What is not here: reading them back.
"""

from __future__ import annotations

import glob
import json
import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, cast

from clip_core.errors import DataError
from clip_eval.features import Excluded
from clip_eval.gallery import save_gallery
from clip_eval.records.companions import write_outcomes, write_tensors
from clip_eval.records.facts import json_sha256, prompt_facts
from clip_eval.tasks.result import TaskResult
from clip_eval.wds import WdsDataset
from clip_hub.hashes import sha256_of

__all__ = ["SCHEMA", "Record", "record_name"]

SCHEMA = 1
"""Raised when a field of the record changes its meaning."""


_NUMBERS = re.compile(r"\[\n\s+((?:[-+.\deE]+|null)(?:,\n\s+(?:[-+.\deE]+|null))*)\n\s+\]")


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
        """Plain types, None for what is not a number: what `save` writes, without the hashes of the companions."""
        facts = dict(self.facts)
        if "prompts" not in facts and (prompts := prompt_facts(self.result.details, facts.get("settings", {}))):
            facts["prompts"] = prompts
        data = {
            "schema": SCHEMA,
            "task": self.result.task,
            "metrics": {name: metric.to_json() for name, metric in self.result.metrics.items()},
            "ties": self.result.ties,
            **facts,
            "details": self.result.details,
        }
        return cast("dict[str, Any]", _finite(data))

    def save(self, folder: str | PathLike[str]) -> Path:
        """Writes `<name>.json` and its companions; see the head of this room.

        Replaces a record of the same weights, configuration, precision and settings on the same data set, split and
        task, and nothing else. Returns the path of the JSON file.

        Raises:
            DataError: a metric is not a finite number, or the folder cannot be written.
        """
        for name, metric in self.result.metrics.items():
            if not all(math.isfinite(value) for value in (metric.value, metric.low, metric.high)):
                raise DataError(
                    f"{self.name}: {name} is {metric.value} with the limits {metric.low} and {metric.high}, which is "
                    "no score. Nothing was written. Check the features and the weights."
                )
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
        for old in base.glob(f"{glob.escape(self.name)}.*"):
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
        companions = {"samples.jsonl": base / f"{self.name}.samples.jsonl"}
        with companions["samples.jsonl"].open("w", encoding="utf-8") as file:
            for sample in self.result.samples:
                file.write(json.dumps(_finite(asdict(sample)), allow_nan=False) + "\n")
        if self.result.outcomes:
            companions["outcomes.safetensors"] = base / f"{self.name}.outcomes.safetensors"
            write_outcomes(companions["outcomes.safetensors"], self.result.outcomes)
        for name, tensors in self.result.artefacts.items():
            companions[f"{name}.safetensors"] = base / f"{self.name}.{name}.safetensors"
            write_tensors(companions[f"{name}.safetensors"], tensors)
        save_gallery(base / f"{self.name}.images", self.dataset, self.result.samples, self.result.details)
        data = {**self.to_json(), "files": {name: sha256_of(place) for name, place in companions.items()}}
        partial = base / f"{self.name}.partial"
        text = json.dumps(data, indent=2, allow_nan=False)
        partial.write_text(_NUMBERS.sub(_on_one_line, text) + "\n", encoding="utf-8")
        partial.replace(path)


def _on_one_line(numbers: re.Match[str]) -> str:
    """A confusion matrix of 1000 classes is a thousand lines rather than a million."""
    return f"[{' '.join(numbers[1].split())}]"


def _finite(value: Any) -> Any:
    """`value` with None where a number is not finite, which JSON cannot say."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(part) for key, part in value.items()}
        case list() | tuple():
            return [_finite(part) for part in value]
        case _:
            return value
