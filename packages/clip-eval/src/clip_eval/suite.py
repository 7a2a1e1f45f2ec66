"""One call from a model and a data set to a record: strict JSON that says what was measured, on what, and with what.

What is not here: collections of data sets by name, comparing records, the report.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from clip_core import Bundle
from clip_core.errors import DataError
from clip_eval.encoder import Encoder
from clip_eval.features import Excluded, ImageFeatures
from clip_eval.gallery import save_gallery
from clip_eval.tasks import TaskResult, evaluate_retrieval, evaluate_zero_shot
from clip_eval.wds import WdsDataset

__all__ = ["SCHEMA", "Record", "evaluate", "model_facts", "read_records"]

_log = logging.getLogger(__name__)

SCHEMA = 1
"""Raised when a field of the record changes its meaning."""


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
        """`dataset.split.task.weights.settings`: the file name of the record, without its ending.

        The last two are beginnings of hashes: of the weights, and of whatever else makes another result of them.
        """
        model, split = self.facts["model"], self.dataset.split
        settings = [model["config_sha256"], self.facts["precision"], self.result.details.get("templates"), split]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, allow_nan=False).encode()).hexdigest()
        # A split may lie deeper ("test/easy"); a record has no folders.
        place = f"{self.dataset.name}.{split.replace('/', '-')}"
        return f"{place}.{self.result.task}.{model['weights_sha256'][:12]}.{digest[:8]}"

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


def evaluate(
    bundle: Bundle,
    dataset: WdsDataset,
    *,
    model_name: str = "",
    templates: Sequence[str] | None = None,
    batch_size: int = 64,
    workers: int = 1,
    progress: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> Record:
    """Encodes `dataset` with `bundle` and scores its task.

    model_name: what to call the model in the record. templates: prompts instead of the data set's own
    (classification). workers: threads that decode. facts: `model_facts(bundle)` where the caller has it already,
    for several data sets. Raises `DataError` for unreadable shards and for features that are not finite.
    """
    start = time.perf_counter()
    bundle.model.eval()
    encoder = Encoder(bundle=bundle, batch_size=batch_size, workers=workers, progress=progress)
    images = encoder.images(dataset)
    if dataset.kind == "classification":
        result = evaluate_zero_shot(encoder, dataset, images, templates=templates)
    else:
        result = evaluate_retrieval(encoder, dataset, images)
    total = time.perf_counter() - start
    if images.excluded:
        _log.warning("%s: %d of %d images left out", dataset.name, len(images.excluded), len(dataset.samples))
    return Record(
        result=result,
        dataset=dataset,
        excluded=images.excluded,
        facts={
            "model": {"name": model_name, **(facts or model_facts(bundle))},
            "dataset": _dataset_facts(dataset, images),
            "precision": {
                "model": str(bundle.model.dtype).removeprefix("torch."),
                "features": "float32",
                "scores": "float32, summed in float64",
            },
            "device": str(bundle.model.logit_scale.device),
            "batch_size": batch_size,
            "seconds": {
                "decode_wait": images.seconds_decode,
                "encode_images": images.seconds_encode,
                "encode_texts": result.seconds_texts,
                "metrics": result.seconds_metrics,
                "total": total,
            },
            "versions": _versions(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )


def model_facts(bundle: Bundle) -> dict[str, Any]:
    """What identifies a model: the hash of its weights and of its configuration, and its size."""
    digest = hashlib.sha256()
    state = bundle.model.state_dict()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    config = bundle.config.to_json()
    canonical = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return {
        "weights_sha256": digest.hexdigest(),
        "config_sha256": hashlib.sha256(canonical.encode()).hexdigest(),
        "parameters": sum(parameter.numel() for parameter in bundle.model.parameters()),
        "logit_scale": float(bundle.model.logit_scale.detach().exp()),
        "config": config,
    }


def read_records(folder: str | PathLike[str]) -> list[tuple[Path, dict[str, Any]]]:
    """All records that `Record.save` left in a folder, by file name; `DataError` for none or for a damaged one."""
    base = Path(folder)
    records = []
    for path in sorted(base.glob("*.json")):
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: not a readable record ({error}).") from error
        if not isinstance(data, dict) or data.get("schema") != SCHEMA or "metrics" not in data:
            raise DataError(f"{path}: not an evaluation record of schema {SCHEMA}. Move other files out of the folder.")
        records.append((path, data))
    if not records:
        raise DataError(f"{base}: holds no evaluation record. `clip-eval run DATASET --output {base}` writes them.")
    return records


def _dataset_facts(dataset: WdsDataset, images: ImageFeatures) -> dict[str, Any]:
    shards = hashlib.sha256()
    for shard in dict.fromkeys(sample.shard for sample in dataset.samples):
        with open(shard, "rb") as file:
            shards.update(hashlib.file_digest(file, "sha256").digest())
    return {
        "name": dataset.name,
        "kind": dataset.kind,
        "split": dataset.split,
        "samples": len(dataset.samples),
        "evaluated": len(images.kept),
        "excluded": {
            "count": len(images.excluded),
            "first": [{"name": entry.name, "reason": entry.reason} for entry in images.excluded[:20]],
        },
        "shards_sha256": shards.hexdigest(),
        "about": _read_about(dataset.folder / "about.json"),
    }


def _read_about(path: Path) -> dict[str, Any] | None:
    """What a data set says about itself: texts under `title`, `description`, `source`, `licence`, a list of `notes`."""
    if not path.exists():
        return None
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}).") from error
    notes = about.get("notes", []) if isinstance(about, dict) else None
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise DataError(f"{path}: must be an object of texts, with a list of texts under 'notes'.")
    return dict(about)


def _versions() -> dict[str, str]:
    packages = ("clip-core", "clip-hub", "clip-eval", "torch", "torchvision", "numpy", "pillow")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
