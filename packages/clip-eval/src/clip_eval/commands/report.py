"""The subcommand `clip-eval report`: the page, and the pictures for a model card."""

from __future__ import annotations

import argparse
from pathlib import Path

from clip_core.errors import ConfigError

__all__ = ["add"]


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the subcommand."""
    report = commands.add_parser(
        "report",
        help="one HTML page from the records, and figures for a model card",
        description="Write one self-contained HTML page from records: scores with intervals, models side by side, "
        "tables of classes, the surest mistakes with their pictures, calibration, robustness and, given a training "
        "run, its loss curve. With --figures also (or only) PNG files for a model card. Prints what it wrote.",
        epilog="examples:\n"
        "  clip-eval report --results results --output report.html\n"
        "  clip-eval report --results results --training runs/demo --output report.html --figures figures\n"
        "  clip-eval report --results results --others old/benchmark.csv --output report.html",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.add_argument("--results", required=True, type=Path, metavar="DIR", help="the folder that `run` wrote")
    report.add_argument("--training", type=Path, metavar="DIR", help="a run folder of clip-train")
    report.add_argument("--output", type=Path, metavar="FILE", help="the page, report.html")
    report.add_argument("--figures", type=Path, metavar="DIR", help="write PNG files into this folder")
    report.add_argument(
        "--others",
        nargs="+",
        default=[],
        type=Path,
        metavar="FILE",
        help="results of CLIP_benchmark, DataComp or OpenCLIP to stand beside the records in the summary",
    )
    report.add_argument("--title", default="CLIP evaluation", help="heading of the page (%(default)s)")
    report.add_argument("--quiet", action="store_true", help="accepted as by the other commands; nothing to leave out")
    report.set_defaults(action=_report)


def _report(arguments: argparse.Namespace) -> None:
    from clip_eval.figures import draw_figures
    from clip_eval.report import write_report

    if arguments.output is None and arguments.figures is None:
        raise ConfigError("Neither --output nor --figures is given; say where the page or the figures shall go.")
    if arguments.output is not None:
        page = write_report(
            arguments.results,
            arguments.output,
            training=arguments.training,
            title=arguments.title,
            others=arguments.others,
        )
        print(page)
    if arguments.figures is not None:
        for path in draw_figures(arguments.results, arguments.figures, training=arguments.training):
            print(path)
