"""Results that other tools wrote, as rows: CLIP_benchmark, DataComp's evaluator, OpenCLIP's tables and training runs.

Each function takes a file whose kind is known; a cell or key that does not belong there is an error that names it, and
a missing number (blank, null, a bare NaN) is left out. What is not here: finding out the kind (`readers`).
"""

from __future__ import annotations

import csv
import dataclasses
import io
import logging
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clip_core.errors import DataError
from clip_eval.catalogue import Entry, lookup
from clip_eval.published import published_metric
from clip_eval.records.reading import SavedRecord, is_record, parse_json
from clip_eval.records.record import SCHEMA
from clip_eval.records.rows import Row, Score, Source, row_of, score_of

__all__ = [
    "OPEN_CLIP_WINOGAVIL",
    "PEER_TASKS",
    "read_clip_benchmark_json",
    "read_clip_benchmark_table",
    "read_datacomp",
    "read_open_clip_languages",
    "read_open_clip_retrieval",
    "read_open_clip_scores",
    "read_open_clip_training",
]

_log = logging.getLogger(__name__)

PEER_TASKS = {
    "zero_shot_classification": "zeroshot_classification",
    "retrieval": "zeroshot_retrieval",
    "caption_choice": "image_caption_selection",
    "linear_probe": "linear_probe",
    "captioning": "captioning",
}
"""Our names of tasks -> CLIP_benchmark's."""
_OUR_TASKS = {theirs: ours for ours, theirs in PEER_TASKS.items()}
_TASK_OF_KIND = {"retrieval": "retrieval", "caption_choice": "caption_choice", "association": "association"}
# CLIP_benchmark keeps the settings of a linear probe among its metrics, and the weight decay that it found.
_SETTINGS = ("epochs", "seed", "fewshot_k", "normalized")
# `clip-eval eval` puts the whole record beside them, whose schema may be one that is not known here.
_NO_METRICS = ("weight_decay", "metrics", "clip_eval")
_TEXTS = ("dataset", "model", "pretrained", "task", "language", "model_fullname", "classnames", "templates")
OPEN_CLIP_WINOGAVIL = {
    "avg jaccard score": "avg_jaccard_score",
    **{f"jaccard score {group}": f"jaccard_score_{group}" for group in ("10", "10-12", "12", "5", "5-6", "6")},
}
"""OpenCLIP's column behind "WinoGAViL " -> metric."""
_OPEN_CLIP_RECALL = re.compile(r"(.+) (image|text) retr\. R@(\d+)")
_OPEN_CLIP_LANGUAGE = re.compile(r"(\S+) ((?:image|text)_retrieval_recall@\d+) (\S+)")
_TRAINING_ZERO_SHOT = {"imagenet-zeroshot-val-top": "imagenet1k", "imagenetv2-zeroshot-val-top": "imagenetv2"}
_TRAINING_RETRIEVAL = {"image_to_text": "text_retrieval", "text_to_image": "image_retrieval"}


def read_clip_benchmark_json(path: Path, data: Mapping[str, Any]) -> list[Row]:
    """The one row of a file that CLIP_benchmark's `eval` wrote; none where its run had failed (`metrics` is null).

    `clip-eval eval` puts its whole record into such a file; there the row is that of the record, which knows the split,
    the limits of each number, the prompts and the data, and the model is called as the file calls it.
    """
    if data["metrics"] is None:
        _log.warning("%s: without metrics, the run had failed; left out", path)
        return []
    if not isinstance(data["metrics"], dict):
        raise DataError(f"{path}: 'metrics' is {type(data['metrics']).__name__}; expected an object of numbers.")
    own = data.get("clip_eval")
    if isinstance(own, dict) and is_record(own) and own["schema"] == SCHEMA:
        row = row_of(SavedRecord(path, own))
        return [dataclasses.replace(row, model=str(data["model"]), pretrained=str(data["pretrained"] or ""))]
    return [_clip_benchmark_row(path, {**data, **data["metrics"]} | {"metrics": None}, str(path))]


def read_clip_benchmark_table(path: Path, text: str) -> list[Row]:
    """The rows of a table that CLIP_benchmark's `build` wrote, or its published `benchmark.csv`."""
    return [_clip_benchmark_row(path, cells, place) for place, cells in _table(path, text)]


def _clip_benchmark_row(path: Path, cells: Mapping[str, Any], place: str) -> Row:
    name = str(cells["dataset"]).removeprefix("wds/")
    entry = lookup(name)
    task = str(cells["task"])
    metrics = {
        key: score
        for key, value in cells.items()
        if key not in (*_TEXTS, *_SETTINGS, *_NO_METRICS) and (score := _score(value, key, entry, place)) is not None
    }
    return Row(
        dataset=entry.name if entry else name,
        split="test",
        task=_OUR_TASKS.get(task, task),
        language=str(cells["language"]) if cells.get("language") else None,
        model=str(cells["model"]),
        pretrained=str(cells["pretrained"] or ""),
        metrics=metrics,
        source="CLIP_benchmark",
        path=path,
        settings={key: _setting(cells[key]) for key in _SETTINGS if cells.get(key) not in (None, "")},
    )


def _setting(value: Any) -> Any:
    """A setting of a table as its JSON has it: true or a number instead of a text."""
    if value in ("True", "False"):
        return value == "True"
    try:
        return int(value) if isinstance(value, str) else value
    except ValueError:
        return value


def read_datacomp(path: Path, text: str) -> list[Row]:
    """The tasks of one model in DataComp's `eval_results.jsonl`; the model is called as the folder of the file."""
    rows = []
    for place, data in _lines(path, text):
        if not isinstance(data.get("metrics"), dict) or "key" not in data:
            raise DataError(f"{place}: not a result of DataComp's evaluator, which has a 'key' and 'metrics'.")
        entry = lookup(str(data["key"]))
        metrics = {
            name: score
            for name, value in data["metrics"].items()
            if name != "main_metric" and (score := _score(value, name, entry, place)) is not None
        }
        main = _score(data["metrics"].get("main_metric"), "main_metric", None, place)
        if main is not None and entry is not None and entry.main_metric not in metrics:
            metrics[entry.main_metric] = score_of(main.value, entry.main_metric, entry)
        rows.append(_row(path, str(data["key"]), entry, path.resolve().parent.name, "", metrics, source="DataComp"))
    return rows


def read_open_clip_scores(path: Path, text: str) -> list[Row]:
    """The rows of `openclip_results.csv` or `openclip_classification_results.csv`: each cell is a main metric."""
    rows = []
    for place, cells in _table(path, text):
        for column, value in cells.items():
            entry = lookup(column)
            if entry is None or column in ("name", "pretrained"):
                continue
            metric = published_metric(entry.name)
            if (score := _score(value, metric, entry, place)) is not None:
                rows.append(_row(path, column, entry, cells["name"], cells["pretrained"], {metric: score}))
    return rows


def read_open_clip_retrieval(path: Path, text: str) -> list[Row]:
    """The rows of `openclip_retrieval_results.csv`: recall of Flickr and MSCOCO, WinoGAViL by its groups."""
    rows = []
    for place, cells in _table(path, text):
        found: dict[str, dict[str, Score]] = {}
        for column, value in cells.items():
            title, _, rest = column.partition(" ")
            if recall := _OPEN_CLIP_RECALL.fullmatch(column):
                title, name = recall[1], f"{recall[2]}_retrieval_recall@{recall[3]}"
            elif rest in OPEN_CLIP_WINOGAVIL:
                name = OPEN_CLIP_WINOGAVIL[rest]
            else:
                continue
            score = _score(value, name, lookup(title), place)
            if score is not None:
                found.setdefault(title, {})[name] = score
        for title, metrics in found.items():
            rows.append(_row(path, title, lookup(title), cells["name"], cells["pretrained"], metrics))
    return rows


def read_open_clip_languages(path: Path, text: str) -> list[Row]:
    """The rows of `openclip_multilingual_retrieval_results.csv`, one for each data set and language."""
    rows = []
    for place, cells in _table(path, text):
        found: dict[tuple[str, str], dict[str, Score]] = {}
        for column, value in cells.items():
            match = _OPEN_CLIP_LANGUAGE.fullmatch(column)
            if match is None or match[3] == "avg":
                continue
            score = _score(value, match[2], lookup(match[1]), place)
            if score is not None:
                found.setdefault((match[1], match[3]), {})[match[2]] = score
        for (name, language), metrics in found.items():
            rows.append(_row(path, name, lookup(name), cells["model"], cells["version"], metrics, language=language))
    return rows


def read_open_clip_training(path: Path, text: str) -> list[Row]:
    """What OpenCLIP's training wrote into `results.jsonl`: an epoch is the tag, the run's folder the model."""
    folder = path.resolve().parent
    run = folder.parent.name if folder.name == "checkpoints" else folder.name
    rows = []
    for place, data in _lines(path, text):
        found: dict[tuple[str, str], dict[str, Score]] = {}
        for key, value in data.items():
            for prefix, dataset in _TRAINING_ZERO_SHOT.items():
                if key.startswith(prefix):
                    name = f"acc{key.removeprefix(prefix)}"
                    _keep(found, (dataset, "test"), name, _score(value, name, lookup(dataset), place))
            for prefix, direction in _TRAINING_RETRIEVAL.items():
                if key.startswith(f"{prefix}_"):
                    name = f"{direction}_{key.removeprefix(f'{prefix}_').replace('R@', 'recall@')}"
                    _keep(found, ("validation data of the training", "val"), name, _score(value, name, None, place))
        tag = f"epoch_{data['epoch']:g}" if isinstance(data.get("epoch"), int | float) else ""
        for (dataset, split), metrics in found.items():
            rows.append(_row(path, dataset, lookup(dataset), run, tag, metrics, split=split))
    return rows


def _keep(found: dict[tuple[str, str], dict[str, Score]], key: tuple[str, str], name: str, score: Score | None) -> None:
    if score is not None:
        found.setdefault(key, {})[name] = score


def _row(
    path: Path,
    dataset: str,
    entry: Entry | None,
    model: str,
    pretrained: str,
    metrics: Mapping[str, Score],
    *,
    source: Source = "OpenCLIP",
    language: str | None = None,
    split: str = "test",
) -> Row:
    retrieval = any("_retrieval_" in name or name.startswith("mean_recall") for name in metrics)
    task = "retrieval" if retrieval else _TASK_OF_KIND.get(entry.kind if entry else "", "zero_shot_classification")
    return Row(
        dataset=entry.name if entry else dataset,
        split=split,
        task=task,
        language=language,
        model=model,
        pretrained=pretrained,
        metrics=metrics,
        source=source,
        path=path,
    )


def _score(value: object, name: str, entry: Entry | None, place: str) -> Score | None:
    """A number as a score; None for what is missing."""
    if value is None or value == "":
        return None
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        number = float(value)
    except ValueError:
        raise DataError(f"{place}: {name!r} is {str(value)[:60]!r}, not a number. Correct or remove it.") from None
    return score_of(number, name, entry) if math.isfinite(number) else None


def _table(path: Path, text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a CSV file with a place for messages; a row with more or fewer cells than the head is an error."""
    reader = csv.DictReader(io.StringIO(text), strict=True)
    try:
        for cells in reader:
            place = f"{path}, line {reader.line_num}"
            if None in cells or None in cells.values():
                raise DataError(f"{place}: has not as many cells as the head of the table.")
            yield place, cells
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not a readable table ({error}).") from error


def _lines(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of a file with one JSON object in each line; a bare NaN is read as missing."""
    for number, line in enumerate(text.splitlines(), 1):
        place = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            data = parse_json(line, strict=False)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place}: not readable JSON ({error}). The file may be cut short.") from error
        if not isinstance(data, dict):
            raise DataError(f"{place}: is {type(data).__name__}; expected an object.")
        yield place, data
