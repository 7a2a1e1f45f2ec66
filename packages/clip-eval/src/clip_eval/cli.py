"""The command `clip-eval`; each sub-command is a module of `commands`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from clip_core import command
from clip_eval.__about__ import __version__
from clip_eval.commands import build, catalogue, compare, evaluate, regress, report, run, table

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
    for part in (run, evaluate, build, catalogue, table, compare, report, regress):
        part.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `clip-eval`; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = make_parser().parse_args(_as_table(words))
    return command.run(lambda: arguments.action(arguments), "clip-eval")


def _as_table(words: list[str]) -> list[str]:
    """CLIP_benchmark's `build`, which makes one CSV of JSON files, is `table` here; `build` writes data sets."""
    if len(words) < 2 or words[0] != "build" or words[1] in build.NAMES:
        return words
    if not (words[1].endswith(".json") or Path(words[1]).is_dir()):
        return words
    rest = words[1:]
    if not any(word.startswith("--output") for word in rest):
        rest += ["--output", "benchmark.csv"]
    return ["table", "--peer", "clip_benchmark", *rest]
