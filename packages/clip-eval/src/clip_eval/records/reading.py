"""Reads records back: the JSON as plain types with typed looks into it, and the companions on demand.

A record must be strict JSON of a schema that is known here; a companion must have the hash that its record states.
"""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from torch import Tensor

from clip_core.errors import DataError
from clip_eval.metrics import Metric
from clip_eval.records.companions import read_outcomes, read_samples, read_tensors
from clip_eval.records.facts import prompt_facts
from clip_eval.records.record import SCHEMA
from clip_eval.tasks.result import Outcomes, SampleResult
from clip_hub.hashes import sha256_of

__all__ = ["SavedRecord", "find_record", "is_record", "load_record", "parse_json", "read_records"]


class SavedRecord(NamedTuple):
    """A record on disk; also a pair (path, data) for whoever wants the plain types."""

    path: Path
    data: dict[str, Any]

    @property
    def name(self) -> str:
        """The file name without its ending, as `record_name` gives it."""
        return self.path.name.removesuffix(".json")

    @property
    def task(self) -> str:
        """Such as "zero_shot_classification"."""
        return str(self.data["task"])

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return str(self.data["dataset"]["name"])

    @property
    def split(self) -> str:
        """Such as "test"."""
        return str(self.data["dataset"]["split"])

    @property
    def model(self) -> str:
        """Name of the model as it was given; the beginning of its hash where there was none."""
        facts = self.data["model"]
        return str(facts["name"] or facts["weights_sha256"][:12])

    @property
    def settings(self) -> dict[str, Any]:
        """What the result depends on beside model and data."""
        return dict(self.data.get("settings") or {})

    @property
    def language(self) -> str | None:
        """Of prompts or captions; None where the record does not say."""
        language = self.settings.get("language")
        return None if language is None else str(language)

    @property
    def prompts_id(self) -> str | None:
        """Equal for equal class names and templates; None for a task without them."""
        prompts = self.data.get("prompts") or prompt_facts(self.data.get("details", {}), self.settings)
        return None if prompts is None else str(prompts["id"])

    @property
    def metrics(self) -> dict[str, Metric]:
        """All numbers by name."""
        return {name: Metric(**values) for name, values in self.data["metrics"].items()}

    def samples(self) -> list[SampleResult]:
        """One entry per image; `DataError` for a missing or damaged file."""
        return read_samples(self._companion("samples.jsonl"))

    def outcomes(self) -> dict[str, Outcomes]:
        """What each query scored, by metric; empty for a record that has none, `DataError` for a damaged file."""
        if not self._states("outcomes.safetensors"):
            return {}
        return read_outcomes(self._companion("outcomes.safetensors"))

    def artefact(self, name: str) -> dict[str, Tensor]:
        """The tensors that the task kept under `name` ("probe"); `DataError` where there are none."""
        if not self._states(f"{name}.safetensors"):
            raise DataError(f"{self.path}: this record kept no {name!r}.")
        return read_tensors(self._companion(f"{name}.safetensors"))

    def _states(self, ending: str) -> bool:
        return ending in self.data.get("files", {})

    def _companion(self, ending: str) -> Path:
        """The file beside the record, which has the stated hash where one is stated."""
        path = self.path.with_name(f"{self.name}.{ending}")
        stated = self.data.get("files", {}).get(ending)
        if stated is None:
            return path
        if not path.is_file():
            raise DataError(f"{path}: missing; {self.path.name} names it. Copy it too, or run the evaluation again.")
        if sha256_of(path) != stated:
            raise DataError(f"{path}: not the file that {self.path.name} was written with. Run the evaluation again.")
        return path


def load_record(path: str | PathLike[str]) -> SavedRecord:
    """One record; `DataError` for a file that is none."""
    place = Path(path)
    try:
        data = parse_json(place.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{place}: not a readable record ({error}).") from error
    if not is_record(data) or data["schema"] != SCHEMA:
        raise DataError(f"{place}: not an evaluation record of schema {SCHEMA}. Move other files out of the folder.")
    return SavedRecord(place, data)


def is_record(data: object) -> bool:
    """Whether JSON `data` is a record of this package, of whatever schema."""
    return (
        isinstance(data, dict)
        and isinstance(data.get("schema"), int)
        and all(isinstance(data.get(key), dict) for key in ("metrics", "dataset", "model"))
        and isinstance(data.get("task"), str)
    )


def parse_json(text: str, *, strict: bool = True) -> Any:
    """Plain types; a bare NaN or Infinity is a `ValueError`, or None where not `strict`."""
    return json.loads(text, parse_constant=_refuse if strict else lambda name: None)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"holds a bare {name}, which is not JSON")


def find_record(folder: str | PathLike[str], name: str) -> SavedRecord | None:
    """The record that `record_name` calls `name`, if it is there and whole; `DataError` for a damaged one."""
    path = Path(folder) / f"{name}.json"
    return load_record(path) if path.is_file() else None


def read_records(folder: str | PathLike[str]) -> list[SavedRecord]:
    """All records that `Record.save` left in a folder, by file name; `DataError` for none or for a damaged one."""
    base = Path(folder)
    records = [load_record(path) for path in sorted(base.glob("*.json"))]
    if not records:
        raise DataError(f"{base}: holds no evaluation record. `clip-eval run DATASET --output {base}` writes them.")
    return records
