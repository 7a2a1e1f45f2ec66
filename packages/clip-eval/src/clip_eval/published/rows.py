"""Reads the published tables: one row for each set of weights, its scores by data set, language and metric."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from statistics import fmean

from clip_core.errors import ConfigError
from clip_eval.catalogue import find
from clip_eval.suites import suite

__all__ = ["PUBLISHED_METRICS", "PublishedRow", "published_metric", "published_row", "published_rows", "split_model"]

PUBLISHED_METRICS: Mapping[str, str] = {"wilds/fmow": "acc_worst_region_all"}
"""Where the published number is not the data set's main metric: DataComp's evaluator counts FMoW's region Other."""

_Scores = dict[str, dict[str, dict[str, float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRow:
    """What was published for one set of weights."""

    model: str
    tag: str
    parameters: float | None = None
    """Millions; None for a row of the multilingual table only."""
    flops: float | None = None
    """Billions, as the table counts them; None as `parameters`."""
    scores: Mapping[str, Mapping[str, Mapping[str, float]]] = field(repr=False, hash=False)
    """Data set (the catalogue's name) -> language -> metric -> score in [0, 1], four decimals."""

    def score(self, dataset: str, metric: str | None = None, language: str = "en") -> float | None:
        """One score, by default the one that the main table shows; None where none was published."""
        name = find(dataset).name
        return self.scores.get(name, {}).get(language, {}).get(metric or published_metric(name))

    @property
    def main_scores(self) -> dict[str, float]:
        """The main table: the scores of DataComp's 38 data sets by name; empty for a multilingual row only."""
        wanted = suite("datacomp").aggregates["Average"]
        scores = {name: self.score(name) for name in wanted}
        return {name: value for name, value in scores.items() if value is not None}

    def average(self, name: str = "Average") -> float | None:
        """One of DataComp's averages (`suite("datacomp").aggregates`) of the published scores."""
        values = [self.score(dataset) for dataset in suite("datacomp").aggregates[name]]
        kept = [value for value in values if value is not None]
        return fmean(kept) if len(kept) == len(values) else None


def published_metric(dataset: str) -> str:
    """The metric whose value the main table shows for a data set."""
    entry = find(dataset)
    return PUBLISHED_METRICS.get(entry.name, entry.main_metric)


@cache
def published_rows() -> tuple[PublishedRow, ...]:
    """All rows: those of the main table, best average first, then two of the multilingual table alone."""
    scores: dict[tuple[str, str], _Scores] = {}
    facts: dict[tuple[str, str], tuple[float, float]] = {}
    for row in _read("zero_shot.csv"):
        key = row.pop("model"), row.pop("tag")
        facts[key] = float(row.pop("parameters")), float(row.pop("flops"))
        for dataset, text in row.items():
            _put(scores.setdefault(key, {}), dataset, "en", published_metric(dataset), text)
    for name in ("retrieval.csv", "multilingual.csv"):
        for row in _read(name):
            key = row.pop("model"), row.pop("tag")
            for column, text in row.items():
                dataset, metric, *language = column.split()
                _put(scores.setdefault(key, {}), dataset, language[0] if language else "en", metric, text)
    return tuple(
        PublishedRow(
            model=model,
            tag=tag,
            parameters=facts.get((model, tag), (None, None))[0],
            flops=facts.get((model, tag), (None, None))[1],
            scores=values,
        )
        for (model, tag), values in scores.items()
    )


def published_row(model: str, tag: str) -> PublishedRow:
    """The row of OpenCLIP's model and tag, also under the spelling `ViT-B/32`.

    OpenAI's weights have QuickGELU under either name, so `ViT-B-32-quickgelu` and `ViT-B-32` with the tag `openai` are
    one row. Raises `ConfigError` with the nearest rows.
    """
    rows = {(row.model.lower(), row.tag.lower()): row for row in published_rows()}
    name, plain_tag = model.strip().replace("/", "-").lower(), tag.strip().lower()
    twins = [name, name.removesuffix("-quickgelu")] if plain_tag == "openai" else [name]
    for spelling in twins:
        if row := rows.get((spelling, plain_tag)):
            return row
    there = [row.tag for row in published_rows() if row.model.lower() in twins]
    if there:
        raise ConfigError(f"No scores were published for {model} with the tag {tag!r}. Its tags: {', '.join(there)}.")
    names = {row.model.lower(): row.model for row in published_rows()}
    near = [names[found] for found in difflib.get_close_matches(name, list(names), n=3)]
    hint = f" Nearest: {', '.join(near)}." if near else ""
    raise ConfigError(f"No scores were published for a model {model!r}.{hint} There are {len(names)} models.")


def split_model(text: str) -> tuple[str, str] | None:
    """Model and tag of `ViT-B-32:openai`, `ViT-B-32,openai` or `ViT-B-32 openai`; None for anything else."""
    for separator in (":", ",", " "):
        model, found, tag = text.strip().partition(separator)
        if found and model and tag.strip() and "/" not in tag:
            return model, tag.strip()
    return None


def _read(name: str) -> Iterator[dict[str, str]]:
    text = (resources.files(__package__) / name).read_text(encoding="utf-8")
    yield from csv.DictReader(text.splitlines())


def _put(scores: _Scores, dataset: str, language: str, metric: str, ten_thousandths: str) -> None:
    scores.setdefault(dataset, {}).setdefault(language, {})[metric] = int(ten_thousandths) / 10_000
