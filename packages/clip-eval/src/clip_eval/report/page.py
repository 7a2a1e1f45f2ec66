"""Puts the page together: reads the records, hands them to the rooms of this package, and renders the templates."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from clip_eval.__about__ import __version__
from clip_eval.records import read_records
from clip_eval.report.calibration import reliability
from clip_eval.report.classes import class_table, confusions, matrix
from clip_eval.report.differences import duels
from clip_eval.report.files import own_samples
from clip_eval.report.groups import group_tables
from clip_eval.report.numbers import INTERVALS, amount, percent, span
from clip_eval.report.others import other_columns
from clip_eval.report.pictures import galleries, searches
from clip_eval.report.probe import probe_sweep
from clip_eval.report.provenance import provenance
from clip_eval.report.results import Board, Result, boards, damaged, models_of, read_results
from clip_eval.report.robustness import shifts
from clip_eval.report.summary import averages, flags, headlines, score_rows, summary_rows, tie_notes
from clip_eval.report.training import training_facts
from clip_eval.report.writing import write_page
from clip_eval.training_log import read_training

__all__ = ["render_report", "write_report"]

_OPEN = 4
"""Up to so many records their details stand open; beyond, each is a line to open."""
_PICTURES = 120
"""Pictures of one kind on a page, all records together, which keeps it a few megabytes; each record shows 4 to 12."""


def write_report(
    results: str | PathLike[str],
    output: str | PathLike[str],
    *,
    training: str | PathLike[str] | None = None,
    title: str = "CLIP evaluation",
    others: Sequence[str | PathLike[str]] = (),
) -> Path:
    """Writes the page.

    Args:
        results: a folder of records.
        output: the file.
        training: a run folder of clip-train.
        title: heading of the page.
        others: results of CLIP_benchmark, DataComp or OpenCLIP that stand beside the records in the summary.

    Raises:
        DataError: a folder without records, or damaged files.
        ConfigError: `output` cannot be written.
    """
    return write_page(render_report(results, training=training, title=title, others=others), output)


def render_report(
    results: str | PathLike[str],
    *,
    training: str | PathLike[str] | None = None,
    title: str = "CLIP evaluation",
    others: Sequence[str | PathLike[str]] = (),
) -> str:
    """The page of `write_report` as a string."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = read_results(read_records(results))
    tables = boards(found)
    models = models_of(found)
    columns = other_columns(others) if others else []
    log = read_training(training) if training is not None else None
    most = min(12, max(4, _PICTURES // len(found)))
    pairs = duels(found, models)
    environment = Environment(
        loader=PackageLoader("clip_eval.report"),
        # The style and the script are the package's own files; everything else is text from records.
        autoescape=lambda name: name is None or name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["amount"] = amount
    environment.filters["span"] = span
    environment.filters["breakable"] = lambda text: re.sub(r"([:/_])", "\\1\u200b", str(text))
    script = environment.get_template("page.js").render()
    return environment.get_template("page.html").render(
        title=title,
        version=__version__,
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        models=models,
        boards=tables,
        several=len(models) > 1,
        headlines=headlines(tables),
        flags=flags,
        ties={board.anchor: tie_notes(board) for board in tables},
        summary=summary_rows(tables, models, columns),
        columns=[*models, *columns],
        averages=averages(tables, models),
        shifts=shifts(tables),
        duels=pairs,
        scores={board.anchor: score_rows(board) for board in tables},
        looks={board.anchor: [_look(result, most) for result in board.results] for board in tables},
        intervals=_intervals(found),
        notes=_notes(tables),
        provenance={board.anchor: [provenance(result) for result in board.results] for board in tables},
        opened=len(found) <= _OPEN,
        training=None if log is None else training_facts(log),
    )


def _look(result: Result, most: int) -> dict[str, Any]:
    """What the templates say about one record beyond its numbers."""
    samples = own_samples(result.path)
    details = result.details
    with damaged(result.path):
        return {
            "result": result,
            "galleries": galleries(result, samples, most),
            "searches": searches(result, most),
            "classes": class_table(details),
            "matrix": matrix(details),
            "confusions": confusions(details),
            "groups": group_tables(details),
            "reliability": reliability(details),
            "sweep": probe_sweep(details),
            "truncated": int(details.get("captions_truncated") or 0) + int(details.get("prompts_truncated") or 0),
        }


def _intervals(results: Sequence[Result]) -> list[str]:
    """The kinds of intervals on the page, in words."""
    names = {number.interval for result in results for number in result.numbers.values()}
    return [phrase for start, phrase in INTERVALS if any(name.startswith(start) for name in names)]


def _notes(tables: Sequence[Board]) -> list[str]:
    """The data sets' own notes, each once."""
    return list(dict.fromkeys(str(note) for board in tables for note in board.about["notes"]))
