"""Puts the page together: facts, figures, tables, configuration; of one run, or of two beside each other."""

from __future__ import annotations

import json
import logging
import math
import statistics
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from clip_core.errors import ClipError, ConfigError
from clip_eval.report.writing import write_page
from clip_train.__about__ import __version__
from clip_train.measuring.split import LOOP, READING, Split
from clip_train.recording import duration
from clip_train.report.curves import STYLES, evaluation_figures, split_figure, step_figures
from clip_train.report.reading import RunRecord, read_run

__all__ = ["leave_report", "render_report", "write_report"]

_log = logging.getLogger(__name__)


def leave_report(folder: Path) -> None:
    """Write report.html into a run's own folder; a report that cannot be made is said, and is no reason to fail."""
    try:
        write_report([folder], folder / "report.html")
    except ClipError as error:
        _log.warning("no report.html: %s", error)
    except Exception:
        _log.warning("no report.html", exc_info=True)


def write_report(folders: Sequence[str | PathLike[str]], output: str | PathLike[str]) -> Path:
    """Write the page of one run, or of two, to `output`.

    Raises `DataError` for a folder that holds no run, `ConfigError` for another number of runs, or where `output`
    cannot be written.
    """
    return write_page(render_report(folders), output)


def render_report(folders: Sequence[str | PathLike[str]]) -> str:
    """The page of `write_report` as a string."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    if len(folders) not in (1, 2):
        raise ConfigError(f"A report is of one run or of two, not of {len(folders)}.")
    runs = [read_run(folder) for folder in folders]
    environment = Environment(
        # The style and the figures are those of clip-eval's report.
        loader=ChoiceLoader([PackageLoader("clip_train.report"), PackageLoader("clip_eval.report")]),
        autoescape=lambda name: name is None or name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # macros.html of clip-eval names filters that no macro here uses.
    for name in ("percent", "amount", "span", "breakable"):
        environment.filters[name] = str
    return environment.get_template("run.html").render(
        runs=list(zip(STYLES, runs, strict=False)),
        several=len(runs) > 1,
        version=__version__,
        remarks=[_remarks(run) for run in runs],
        facts=_table([_facts(run) for run in runs]),
        figures=step_figures(runs),
        splits=[(run, split_figure(run)) for run in runs],
        parts=LOOP,
        loop=_seconds(runs, LOOP),
        reading=_seconds(runs, READING),
        evaluations=evaluation_figures(runs),
        scores=_table([_scores(run) for run in runs]),
        differences=[row for row in _settings(runs) if row[2]],
        settings=_settings(runs),
        versions=_table([_versions(run) for run in runs]),
    )


def _table(columns: Sequence[dict[str, str]]) -> list[tuple[str, list[str]]]:
    """Rows of a name and the value of each run, "–" where it has none."""
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, [column.get(name, "–") for column in columns]) for name in names]


def _facts(run: RunRecord) -> dict[str, str]:
    summary, columns = run.summary, run.columns
    finite = [loss for loss in columns["loss"] if math.isfinite(loss)]
    speeds = [speed for speed in columns["samples_per_second"] if math.isfinite(speed)]
    total = summary.get("total_steps")
    facts = {
        "Steps": f"{run.steps:,}" + (f" of {total:,}" if total and total != run.steps else ""),
        "Samples seen": f"{columns['samples_seen'][-1]:,.0f}",
        "Loss, last": f"{finite[-1]:.4f}" if finite else "no number",
        "Loss, lowest": f"{min(finite):.4f}" if finite else "no number",
        "Samples per second, median": f"{statistics.median(speeds):,.0f}" if speeds else "–",
    }
    if summary.get("seconds"):
        facts["Time"] = duration(summary["seconds"])
    if summary.get("processes"):
        facts["Processes"] = f"{summary['processes']:,}"
    used = [value for value in columns["mfu"] if math.isfinite(value)]
    if used:
        facts["MFU, median"] = f"{100 * statistics.median(used):.1f} %"
    if summary.get("peak_memory_bytes"):
        facts["Peak memory"] = f"{summary['peak_memory_bytes'] / 1e9:.2f} GB"
    facts["Skipped steps"] = f"{run.steps - run.updated - run.overflowed:,}"
    if run.overflowed:
        facts["Overflows of float16"] = f"{run.overflowed:,}"
    facts["Lost samples"] = f"{run.skipped_samples:,} times" + (
        f", {summary['skipped_samples']:,} different" if summary.get("skipped_samples") else ""
    )
    if "truncated_captions" in summary:
        facts["Captions cut"] = f"{summary['truncated_captions']:,}"
    by_shard = summary.get("skipped_by_shard") or {}
    worst = sorted(by_shard.items(), key=lambda item: -item[1])[:3]
    if worst:
        facts["Shards that lost most"] = "; ".join(f"{Path(name).name} {count:,}" for name, count in worst)
    return facts


def _remarks(run: RunRecord) -> list[str]:
    said = [str(sentence) for sentence in run.summary.get("advice", [])]
    if run.summary and not run.summary.get("finished", True):
        said.insert(0, "the run did not come to its end")
    if not run.summary:
        said.insert(0, "the run goes on, or was killed: it left no summary")
    slow = run.summary.get("processes_seconds")
    if slow and len(slow) > 1:
        said.append(
            f"process {slow.index(max(slow))} was the slowest at the end: {1000 * max(slow):.1f} ms a step before the "
            f"first exchange, the fastest {1000 * min(slow):.1f} ms"
        )
    return said


def _seconds(runs: Sequence[RunRecord], parts: dict[str, str]) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """(part, its words, for each run milliseconds of a step and share)."""

    def cell(split: Split, part: str) -> tuple[str, str]:
        if not split.steps:
            return "–", ""
        if part in split.loop:
            return f"{1000 * split.loop[part] / split.steps:.1f} ms", f"{100 * split.share(part):.0f} %"
        return f"{1000 * split.reading[part] / split.steps:.1f} ms", f"{100 * split.share_of_reading(part):.0f} %"

    return [(part, words, [cell(run.split, part) for run in runs]) for part, words in parts.items()]


def _scores(run: RunRecord) -> dict[str, str]:
    """The last value of each number."""
    last: dict[str, str] = {}
    for entry in run.evaluations:
        for name, value in entry.items():
            if "/" in name and not name.endswith(("_low", "_high")) and isinstance(value, int | float):
                last[name] = f"{value:.4g}"
                low, high = entry.get(f"{name}_low"), entry.get(f"{name}_high")
                if low is not None and high is not None:
                    last[name] += f" ({low:.4g} to {high:.4g})"
    return dict(sorted(last.items()))


def _settings(runs: Sequence[RunRecord]) -> list[tuple[str, list[str], bool]]:
    """(field, value of each run, whether they differ), in the order of the configuration."""
    names = dict.fromkeys(name for run in runs for name in run.config)
    rows = []
    for name in names:
        values = [_shown(run.config[name]) if name in run.config else "–" for run in runs]
        rows.append((name, values, len(set(values)) > 1))
    return rows


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _versions(run: RunRecord) -> dict[str, str]:
    found = {name: str(value) for name, value in run.summary.get("versions", {}).items()}
    for name in ("device", "config_sha256"):
        if name in run.summary:
            found[name] = str(run.summary[name])
    return found
