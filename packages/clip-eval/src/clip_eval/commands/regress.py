"""The subcommand `clip-eval regress`: results against the published row of the same weights, for people and for CI."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

__all__ = ["add"]


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the subcommand."""
    regress = commands.add_parser(
        "regress",
        help="compare results with the published scores of the same weights",
        description="Print each result beside OpenCLIP's published score of the same weights and say whether they "
        "agree: within how far two published tables lie apart on that data set, and within the sampling error. Exit "
        "code 1 where one differs by more, 0 otherwise, 2 where nothing could be compared.",
        epilog="examples:\n  clip-eval regress results\n  clip-eval regress results --model ViT-B-32 --tag openai\n"
        "  clip-eval regress results --strict --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    regress.add_argument(
        "results", nargs="+", type=Path, metavar="RESULTS", help="folders or files, as `clip-eval table` reads them"
    )
    regress.add_argument("--model", metavar="MODEL", help="which weights they are of (default: what the results say)")
    regress.add_argument("--tag", metavar="TAG", help="the tag of --model")
    regress.add_argument("--strict", action="store_true", help="allow the tolerance alone, without the sampling error")
    regress.add_argument("--json", action="store_true", help="as JSON")
    regress.set_defaults(action=_regress)


def _regress(options: argparse.Namespace) -> int:
    from clip_core.errors import ConfigError
    from clip_eval.records import read_rows
    from clip_eval.regress import failures, regress, summary, table

    if options.tag is not None and options.model is None:
        raise ConfigError("--tag needs --model.")
    checks = regress(read_rows(options.results), model=options.model, tag=options.tag, strict=options.strict)
    failed = failures(checks)
    if options.json:
        found = {"compared": summary(checks), "failed": len(failed), "checks": [check.to_json() for check in checks]}
        print(json.dumps(found, indent=1, allow_nan=False))
    else:
        models = ", ".join(dict.fromkeys(check.model for check in checks))
        print(f"against the published scores of {models}\n")
        print("\n".join(table(checks)))
        print(f"\n{summary(checks)}")
    if failed:
        print(f"clip-eval regress: {len(failed)} scores differ by more than is allowed", file=sys.stderr)
    return 1 if failed else 0
