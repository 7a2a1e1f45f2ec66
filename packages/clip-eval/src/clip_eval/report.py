"""Makes one self-contained HTML page from evaluation records and, if there is one, the log of the training.

The page loads nothing: pictures are data URIs, figures are inline SVG and HTML. All text goes through the template's
escaping, because captions and class names come from data. Layout and words are in `report.html`.
"""

from __future__ import annotations

import base64
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Any

from clip_core.errors import ConfigError, DataError
from clip_eval.__about__ import __version__
from clip_eval.gallery import choose
from clip_eval.records import read_records
from clip_eval.tasks.result import Answer, SampleResult
from clip_eval.training_log import TrainingLog, loss_curve, read_training

__all__ = ["render_report", "write_report"]

_MATRIX_CLASSES = 15
"""Up to here a confusion matrix can be read on a phone; beyond, the most frequent confusions are listed."""
_PNG = b"\x89PNG\r\n\x1a\n"
_HEADLINES = {
    "acc1": "Zero-shot accuracy",
    "image_retrieval_recall@1": "Text to image, R@1",
    "text_retrieval_recall@1": "Image to text, R@1",
}
_METRIC_NAMES = {
    "acc1": "Accuracy",
    "acc5": "Accuracy within the first 5",
    "mean_per_class_recall": "Mean per class recall",
    **{f"image_retrieval_recall@{k}": f"Text to image, R@{k}" for k in (1, 5, 10)},
    "image_retrieval_median_rank": "Text to image, median rank",
    **{f"text_retrieval_recall@{k}": f"Image to text, R@{k}" for k in (1, 5, 10)},
    "text_retrieval_median_rank": "Image to text, median rank",
}


@dataclass(frozen=True, slots=True)
class _Picture:
    sample: SampleResult
    uri: str


def write_report(
    results: str | PathLike[str],
    output: str | PathLike[str],
    *,
    training: str | PathLike[str] | None = None,
    title: str = "CLIP evaluation",
) -> Path:
    """Writes the page for the records in folder `results`; `training` is a run folder of clip-train.

    Raises `DataError` for a folder without records or with damaged ones, `ConfigError` when `output` cannot be written.
    """
    page = render_report(results, training=training, title=title)
    path = Path(output)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: the report cannot be written ({error.strerror}). Choose another file.") from error
    return path


def render_report(
    results: str | PathLike[str],
    *,
    training: str | PathLike[str] | None = None,
    title: str = "CLIP evaluation",
) -> str:
    """The page of `write_report` as a string."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = lambda value: "–" if value is None else f"{100 * value:.1f} %"
    environment.filters["number"] = _number
    template = environment.from_string(files("clip_eval").joinpath("report.html").read_text(encoding="utf-8"))
    # Classification first: its sections are the ones that say what the classes are.
    found = sorted(read_records(results), key=lambda record: record[1]["task"] != "zero_shot_classification")
    records = [_section(path, data, title) for (path, data), title in zip(found, _titles(found), strict=True)]
    log = read_training(training) if training is not None else None
    return template.render(
        title=title,
        version=__version__,
        sections=records,
        headlines=[headline for section in records for headline in section["headlines"]],
        models=list({_identity(section["data"]): section["data"]["model"] for section in records}.values()),
        notes=_notes(records),
        training=None if log is None else _training(log),
    )


def _identity(data: dict[str, Any]) -> tuple[str, str]:
    """What tells a record's model from another one."""
    return data["model"]["weights_sha256"], data["model"]["config_sha256"]


def _titles(found: Sequence[tuple[Path, dict[str, Any]]]) -> list[str]:
    """The data sets' titles; with the split and the settings where one model has several records on one data set."""
    titles = [(data["dataset"]["about"] or {}).get("title") or data["dataset"]["name"] for _, data in found]
    keys = [(title, data["model"]["weights_sha256"]) for title, (_, data) in zip(titles, found, strict=True)]
    return [
        title
        if keys.count(key) == 1
        else f"{title} (split {data['dataset']['split']}, settings {path.stem.rpartition('.')[2]})"
        for title, key, (path, data) in zip(titles, keys, found, strict=True)
    ]


def _section(path: Path, data: dict[str, Any], title: str) -> dict[str, Any]:
    """Everything that the template says about one record."""
    samples = _read_samples(path.with_suffix(".samples.jsonl"))
    pictures = [_Picture(sample, _data_uri(path.with_suffix(".images"), sample.index)) for sample in choose(samples)]
    about = {"description": None, "source": None, "licence": None, "notes": [], **(data["dataset"]["about"] or {})}
    details = data["details"]
    metrics = [
        {
            "name": _METRIC_NAMES.get(name, name),
            "share": not name.endswith("rank"),
            **metric,
        }
        for name, metric in data["metrics"].items()
    ]
    section = {
        "data": data,
        "title": title,
        "about": about,
        "metrics": metrics,
        "headlines": [
            {
                "name": label,
                "dataset": title,
                "model": data["model"]["name"],
                "chance": _chance(name, data),
                **data["metrics"][name],
            }
            for name, label in _HEADLINES.items()
            if name in data["metrics"]
        ],
        "right": [picture for picture in pictures if picture.sample.right],
        "wrong": [picture for picture in pictures if not picture.sample.right],
        "wrong_count": sum(not sample.right for sample in samples),
        "count": len(samples),
        "truncated": details.get("captions_truncated", 0) + details.get("prompts_truncated", 0),
        "matrix": None,
        "confusions": [],
    }
    if data["task"] == "zero_shot_classification":
        names = [entry["name"] for entry in details["classes"]]
        if len(names) <= _MATRIX_CLASSES:
            section["matrix"] = _matrix(details["confusion"])
        section["confusions"] = _confusions(names, details["confusion"])
    return section


def _chance(name: str, data: dict[str, Any]) -> float | None:
    """The expected score of a model that draws lots, where it is one plain fraction."""
    details = data["details"]
    if name == "acc1":
        return 1 / len(details["classes"])
    images, captions = int(details["images"]), int(details["captions"])
    if name == "image_retrieval_recall@1" or images == captions:
        return 1 / images
    return None


def _matrix(confusion: list[list[int]]) -> list[list[dict[str, Any]]]:
    """Rows of cells with the count and its share of the row, which is the depth of its colour."""
    return [
        [
            {"count": count, "share": count / max(1, sum(row)), "diagonal": place == line}
            for place, count in enumerate(row)
        ]
        for line, row in enumerate(confusion)
    ]


def _confusions(names: list[str], confusion: list[list[int]], most: int = 10) -> list[dict[str, Any]]:
    """The most frequent mistakes."""
    found: list[dict[str, Any]] = [
        {"truth": names[line], "guess": names[place], "count": count, "of": sum(row)}
        for line, row in enumerate(confusion)
        for place, count in enumerate(row)
        if count and place != line
    ]
    return sorted(found, key=lambda entry: -entry["count"])[:most]


def _read_samples(path: Path) -> list[SampleResult]:
    samples = []
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                data = json.loads(line)
                answers = tuple(Answer(**answer) for answer in data.pop("answers"))
                sample = SampleResult(answers=answers, truth=tuple(data.pop("truth")), **data)
                if type(sample.index) is not int or sample.index < 0:
                    raise ValueError(f"index is {sample.index!r}, not a whole number from 0")
                samples.append(sample)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: not the samples of a record ({error!r}). Run the evaluation again.") from error
    return samples


def _data_uri(folder: Path, index: int) -> str:
    """The picture `<index>.png` of a record, and nothing else that a results folder from elsewhere may point at."""
    path = folder / f"{index}.png"
    # Only the results folder itself may be reached through a link.
    if path.resolve() != folder.parent.resolve() / folder.name / path.name or (path.exists() and not path.is_file()):
        raise DataError(
            f"{path}: a link or no regular file, so not a picture of this record. Run the evaluation again."
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: missing picture ({error.strerror}). Run the evaluation again.") from error
    if not data.startswith(_PNG):
        raise DataError(f"{path}: not a PNG picture. Run the evaluation again.")
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")


def _notes(sections: list[dict[str, Any]]) -> list[str]:
    """The data sets' own notes, each once."""
    return list(dict.fromkeys(note for section in sections for note in section["about"].get("notes", [])))


def _training(log: TrainingLog) -> dict[str, Any]:
    last = log.steps[-1]
    speeds = [entry["samples_per_second"] for entry in log.steps if entry.get("samples_per_second")]
    facts: list[tuple[str, str]] = [("Run", log.name), ("Steps", f"{last['step']:,}")]
    _add(
        facts,
        "Epochs begun",
        last.get("epoch"),
        lambda value: f"{value:g}" if isinstance(value, float) else str(value + 1),
    )
    _add(facts, "Samples seen", last.get("samples_seen"), lambda value: f"{value:,}")
    _add(facts, "Samples per second, median", statistics.median(speeds) if speeds else None, lambda v: f"{v:,.0f}")
    bad = sum(entry["loss"] is None for entry in log.steps)
    if bad:
        facts.append(("Steps whose loss was not a number", f"{bad:,}"))
    if log.cut:
        facts.append(("Log", "its last line is cut short: the run was stopped in the middle of a step"))
    return {
        "facts": facts,
        "curve": loss_curve(log),
        "config": json.dumps(log.config, indent=2, ensure_ascii=False),
    }


def _add(facts: list[tuple[str, str]], name: str, value: Any, form: Callable[[Any], str]) -> None:
    if value is not None:
        facts.append((name, form(value)))


def _number(value: float) -> str:
    return f"{value:,.1f}".removesuffix(".0")
