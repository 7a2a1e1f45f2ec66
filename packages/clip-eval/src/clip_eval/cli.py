"""The command `clip-eval`; each sub-command is a module of `commands`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from clip_core import command
from clip_eval.__about__ import __version__
from clip_eval.commands import catalogue, evaluate, run

__all__ = ["main", "make_parser"]

_EXAMPLES = """\
examples:
  clip-eval build digits --output data
  clip-eval run data/digits data/digit_scenes --model runs/demo/bundle --output results
  clip-eval report --results results --training runs/demo --output report.html
"""


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="clip-eval",
        description="Zero-shot, retrieval and probe scores for CLIP models, with 95 % intervals.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"clip-eval {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for part in (run, evaluate, catalogue):
        part.add(commands)
    _add_build(commands)
    _add_report(commands)
    return parser


def _add_build(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    build = commands.add_parser("build", help="write a data set to disk", description="Writes a data set to disk.")
    sets = build.add_subparsers(dest="dataset", metavar="DATASET", required=True)
    digits = sets.add_parser(
        "digits",
        help="scikit-learn's handwritten digits: training shards, held-out digits and two-digit scenes",
        description="Writes OUTPUT/train (pictures with captions), OUTPUT/digits (360 held-out scans, ten classes) and "
        "OUTPUT/digit_scenes (200 held-out scenes of two digits, one caption each). Needs no network.",
    )
    digits.add_argument("--output", required=True, type=Path, metavar="DIR", help="a new or empty folder")
    digits.add_argument(
        "--train-samples", type=int, default=20_000, metavar="N", help="training pictures (%(default)s)"
    )
    digits.add_argument("--seed", type=int, default=0, metavar="N", help="of the training pictures (%(default)s)")
    digits.add_argument("--quiet", action="store_true", help="no progress bars")
    digits.set_defaults(action=_build_digits)


def _add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    report = commands.add_parser(
        "report",
        help="one HTML page from the records",
        description="Writes one self-contained HTML page: scores with intervals, tables, pictures with their best "
        "captions and, given a training run, its loss curve.",
    )
    report.add_argument("--results", required=True, type=Path, metavar="DIR", help="the folder that `run` wrote")
    report.add_argument("--training", type=Path, metavar="DIR", help="a run folder of clip-train")
    report.add_argument("--output", required=True, type=Path, metavar="FILE", help="the page, report.html")
    report.add_argument("--title", default="CLIP evaluation", help="heading of the page (%(default)s)")
    report.add_argument("--quiet", action="store_true", help="no progress bars")
    report.set_defaults(action=_report)


def _build_digits(arguments: argparse.Namespace) -> None:
    from clip_eval.datasets.digits import build_digits

    folder = build_digits(
        arguments.output,
        train_samples=arguments.train_samples,
        seed=arguments.seed,
        progress=not arguments.quiet,
    )
    for name in ("train", "digits", "digit_scenes"):
        print(folder / name)


def _report(arguments: argparse.Namespace) -> None:
    from clip_eval.report import write_report

    print(write_report(arguments.results, arguments.output, training=arguments.training, title=arguments.title))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `clip-eval`; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = make_parser().parse_args(_as_table(words))
    return command.run(lambda: arguments.action(arguments), "clip-eval")


def _as_table(words: list[str]) -> list[str]:
    """CLIP_benchmark's `build`, which makes one CSV of JSON files, is `table` here; `build` writes data sets."""
    if len(words) < 2 or words[0] != "build" or not (words[1].endswith(".json") or Path(words[1]).is_dir()):
        return words
    rest = words[1:]
    if not any(word.startswith("--output") for word in rest):
        rest += ["--output", "benchmark.csv"]
    return ["table", "--peer", "clip_benchmark", "--format", "csv", *rest]
