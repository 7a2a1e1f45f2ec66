"""The JSON files of `clip-eval eval`: where CLIP_benchmark would write each result, and what it would write."""

from __future__ import annotations

import argparse
import functools
import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from clip_core.errors import ConfigError, StorageError
from clip_eval.commands.benchmark_flags import OUTPUT
from clip_eval.records.peers import PEER_TASKS

if TYPE_CHECKING:
    from clip_eval.processes import Ranks
    from clip_eval.records import Record
    from clip_eval.selection import Selected

__all__ = ["Job", "are_there", "path_of", "paths_of", "require_own_paths", "write_result"]

_log = logging.getLogger(__name__)


class Job(NamedTuple):
    """One data set in one language, for one model."""

    model: str
    """Architecture."""
    pretrained: str
    """Its tag, or a file of weights."""
    place: int
    """Of the data set among those that were asked for; a flag may have a value for each."""
    selected: Selected
    language: str


def paths_of(job: Job, output: str, task: str | None) -> list[Path]:
    """One for each question of the data set; a set that is neither known nor here yet is taken to ask one."""
    from clip_eval.running import objectives_of

    asked = objectives_of(job.selected, functools.partial(Path, job.selected.address))
    return [path_of(job, output, task, objective) for objective in asked]


def path_of(job: Job, output: str, task: str | None, objective: str) -> Path:
    """Where CLIP_benchmark would write this result of `task`, as records call it, or of None, which is "auto".

    With "auto" the kind of a set that is not here yet is guessed.
    """
    from clip_eval.wds.text_files import read_kind

    selected = job.selected
    kind = selected.entry.kind if selected.entry is not None else "classification"
    if selected.entry is None and Path(selected.address).is_dir():
        kind = read_kind(Path(selected.address))
    auto = {"retrieval": "zeroshot_retrieval", "caption_choice": "image_caption_selection"}
    is_file = Path(job.pretrained).is_file()
    typed = selected.word.removeprefix("wds/") or selected.name
    values = {
        "model": job.model.replace("/", "_"),
        "pretrained": Path(job.pretrained).name if is_file else job.pretrained.replace("/", "_"),
        "pretrained_full_path": job.pretrained.replace("/", "_"),
        "task": PEER_TASKS[task] if task is not None else auto.get(kind, "zeroshot_classification"),
        "dataset": "_".join(filter(None, (typed.replace("/", "_"), objective))),
        "language": job.language,
    }
    try:
        return Path(output.format(**values))
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        allowed = ", ".join(f"{{{name}}}" for name in values)
        raise ConfigError(f"--output {output!r} cannot be filled ({error!r}); allowed: {allowed}.") from error


def require_own_paths(output: str, paths: Sequence[Path]) -> None:
    """Raise `ConfigError` where `output` gives two results one file."""
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise ConfigError(
            f"--output {output!r} would write several results to {twice[0]}, each over the one before. Tell them apart "
            f"with more of its words, as in {OUTPUT!r}."
        )


def are_there(paths: Sequence[Path], ranks: Ranks, *, aloud: bool) -> bool:
    """Whether the first process sees all of them."""
    there = bool(ranks.text_from_first("yes" if all(path.exists() for path in paths) else ""))
    if there and ranks.first and aloud:
        _log.warning("%s is there already and is skipped", ", ".join(map(str, paths)))
    return there


def write_result(arguments: argparse.Namespace, job: Job, record: Record, path: Path) -> None:
    """Write the file, whole or not at all, and print its numbers; `StorageError` where it cannot be written."""
    selected = job.selected
    metrics = {name: metric.value for name, metric in record.result.metrics.items()}
    body: dict[str, Any] = {
        "dataset": selected.word or selected.name,
        "model": job.model,
        "pretrained": job.pretrained,
        "task": PEER_TASKS.get(record.result.task, record.result.task),
        "metrics": metrics,
        "language": job.language,
    }
    details = record.to_json()["details"]
    if arguments.dump_classnames and "classes" in details:
        body["classnames"] = [entry["name"] for entry in details["classes"]]
    if arguments.dump_templates and "templates" in details:
        body["templates"] = details["templates"]
    body["clip_eval"] = record.to_json()
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(json.dumps(body, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise StorageError(f"--output {path} cannot be written ({error.strerror}); choose another file.") from error
    print(f"{selected.name} {job.language} {' '.join(f'{name}={value:.4f}' for name, value in metrics.items())}")
    print(f"record: {path}", flush=True)
