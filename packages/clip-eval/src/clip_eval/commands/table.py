"""The subcommand `clip-eval table`: results of all origins as one table."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clip_eval.records import Row

__all__ = ["add", "select_models", "write_output"]

_DESCRIPTION = """\
Print results as a table: for people (text, md) data sets by models with 95 % intervals, for programs (csv, parquet)
one line for each number, for other tools (--peer) their own columns. Reads folders of records, CLIP_benchmark's JSON
and CSV, DataComp's eval_results.jsonl, OpenCLIP's result tables and the results.jsonl of its training."""
_EXAMPLES = """\
examples:
  clip-eval table results
  clip-eval table results benchmark.csv eval_results.jsonl --metrics acc1,mean_per_class_recall
  clip-eval table results --suite datacomp --format md --output scores.md
  clip-eval table results --format parquet --output scores.parquet
  clip-eval table results --peer clip_benchmark --output benchmark.csv
"""
_WIDEST, _NARROWEST = 120, 80


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the subcommand."""
    table = commands.add_parser(
        "table",
        help="results of many models, ours and other tools', as one table",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    table.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="folders or files")
    layout = table.add_mutually_exclusive_group()
    layout.add_argument(
        "--format", choices=("text", "md", "csv", "parquet"), default="text", help="(default: %(default)s)"
    )
    layout.add_argument(
        "--peer",
        choices=("clip_benchmark", "open_clip", "datacomp"),
        help="the columns of CLIP_benchmark's CSV, of openclip_results.csv, or DataComp's eval_results.jsonl",
    )
    table.add_argument("-o", "--output", type=Path, metavar="FILE", help="write there instead of printing")
    table.add_argument(
        "--metrics",
        default=None,
        metavar="NAMES",
        help="main, all, or names with commas (default: main for people, all for csv and parquet)",
    )
    table.add_argument("--columns", metavar="NAMES", help="of csv and parquet, with commas, in this order")
    table.add_argument("--model", action="append", metavar="NAME", help="only this model; may be given several times")
    table.add_argument("--suite", metavar="NAME", help="only the data sets of a suite, in its order, with its averages")
    table.add_argument("--digits", type=int, choices=range(5), default=1, help="after the point (default: %(default)s)")
    table.add_argument(
        "--width", type=int, metavar="N", help="columns of text before models go into a further table (default: yours)"
    )
    table.set_defaults(action=_table)


def _table(options: argparse.Namespace) -> None:
    from clip_core.errors import ConfigError
    from clip_eval.records.overview import overview
    from clip_eval.records.peer_tables import PEERS
    from clip_eval.records.readers import read_rows
    from clip_eval.records.tables import COLUMNS, tidy, to_csv, to_parquet
    from clip_eval.suites import suite

    rows = select_models(read_rows(options.results), options.model)
    chosen = None if options.suite is None else suite(options.suite)
    if chosen is not None:
        order = {name: place for place, name in enumerate(chosen.datasets)}
        rows = sorted((row for row in rows if row.dataset in order), key=lambda row: order[row.dataset])
        if not rows:
            raise ConfigError(f"None of the results is of a data set of {chosen.name}: {', '.join(order)}.")
    columns = COLUMNS if options.columns is None else tuple(options.columns.split(","))
    if unknown := [name for name in columns if name not in COLUMNS]:
        raise ConfigError(f"There is no column {unknown[0]!r}. Columns: {', '.join(COLUMNS)}.")
    people = options.format in ("text", "md") and options.peer is None
    metrics = options.metrics or ("main" if people else "all")
    wanted = metrics if metrics in ("main", "all") else tuple(metrics.split(","))
    if not isinstance(wanted, str):
        held = dict.fromkeys(name for row in rows for name in row.metrics)
        if missing := [name for name in wanted if name not in held]:
            raise ConfigError(f"No result has the metric {missing[0]!r}. They have: {', '.join(held)}.")
    if options.peer is not None:
        write_output(PEERS[options.peer](rows), options.output)
    elif options.format == "csv":
        write_output(to_csv(tidy(rows, wanted), columns), options.output)
    elif options.format == "parquet":
        if options.output is None:
            raise ConfigError("Parquet is no text; say --output FILE.")
        with _writing(options.output):
            to_parquet(tidy(rows, wanted), options.output, columns)
    else:
        terminal = min(_WIDEST, max(_NARROWEST, shutil.get_terminal_size().columns))
        text = overview(
            rows,
            metrics=wanted,
            suite=chosen,
            digits=options.digits,
            width=options.width or terminal,
            markdown=options.format == "md",
        )
        write_output(f"{text}\n", options.output)


def select_models(rows: Sequence[Row], names: Sequence[str] | None) -> list[Row]:
    """The rows of the models named: `model:tag`, or the model alone where that is only one."""
    from clip_core.errors import ConfigError

    if names is None:
        return list(rows)
    held = dict.fromkeys(row.model_name for row in rows)
    for name in names:
        if not any(name in (row.model_name, row.model) for row in rows):
            raise ConfigError(f"No result is of the model {name!r}. Models: {', '.join(held)}.")
    return [row for row in rows if row.model_name in names or row.model in names]


def write_output(text: str, path: Path | None) -> None:
    """Print `text`, or write it and print the path; `ConfigError` where it cannot be written."""
    if path is None:
        sys.stdout.write(text)
        return
    with _writing(path):
        path.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    from clip_core.errors import ConfigError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ConfigError(f"--output {path}: cannot be written ({error.strerror}). Choose another file.") from error
    print(path)
