"""The subcommand `clip-eval compare`: two models, data set by data set, and what of it is noise."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clip_eval.columns import aligned

if TYPE_CHECKING:
    from clip_eval.compare import Comparison
    from clip_eval.records import Row

__all__ = ["add", "render"]

_DESCRIPTION = """\
Compare model A with model B on every data set that both have: the difference, its 95 % interval, and a verdict.
Where the records kept what each query scored, the test is paired, on the same images: McNemar's exact test for hits
and misses, else a bootstrap over images. p is corrected by Holm's method over the data sets. Results of other tools
have no such record and are compared unpaired, which sees less. Results of other prompts, data or exclusions are not
compared."""
_WIDTH = 110
_REASON = 32
"""Longer reasons stand below the table."""
_EXAMPLES = """\
examples:
  clip-eval compare results/before results/after
  clip-eval compare results --models ViT-B-32:openai ViT-B-32:laion2b_s34b_b79k
  clip-eval compare benchmark.csv results --models ViT-B-32:openai
  clip-eval compare before after --fail-if-worse --json > comparison.json
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the subcommand."""
    compare = commands.add_parser(
        "compare",
        help="whether one model is better than another, or only luckier",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.add_argument(
        "results",
        nargs="+",
        type=Path,
        metavar="RESULTS",
        help="A and B: folders or files; or one with two models, A the first by name",
    )
    compare.add_argument(
        "--models",
        nargs="+",
        metavar="NAME",
        help="which models of the results: the one that both have, or A and B",
    )
    compare.add_argument(
        "--metrics", default="main", metavar="NAMES", help="main, all, or names with commas (%(default)s)"
    )
    compare.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="WHAT",
        help="compare although prompts, settings or language differ; may be given several times",
    )
    compare.add_argument("--resamples", type=int, default=2000, metavar="N", help="of the bootstrap (%(default)s)")
    compare.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap (%(default)s)")
    compare.add_argument("--json", action="store_true", help="everything as JSON")
    compare.add_argument(
        "--fail-if-worse",
        action="store_true",
        help="exit code 1 where B is worse than A beyond noise on any data set, 2 where that could be tested on none",
    )
    compare.set_defaults(action=_compare)


def _compare(options: argparse.Namespace) -> int:
    from clip_core.errors import ConfigError
    from clip_eval.compare import average_difference, compare_rows
    from clip_eval.records.matching import unmatched
    from clip_eval.records.overview import in_catalogue_order

    if options.resamples < 100:
        raise ConfigError(f"--resamples is {options.resamples}; 95 % limits need 100 or more.")
    (name, first), (other, second) = _models(options.results, options.models)
    if name == other:
        name, other = f"{name} ({options.results[0]})", f"{other} ({options.results[-1]})"
    first, second = in_catalogue_order(first), in_catalogue_order(second)
    metrics = options.metrics if options.metrics in ("main", "all") else tuple(options.metrics.split(","))
    found = compare_rows(
        first, second, metrics=metrics, ignore=options.ignore, resamples=options.resamples, seed=options.seed
    )
    if not found:
        raise ConfigError(
            f"{name} and {other} have no data set and metric in common. A has "
            f"{', '.join(dict.fromkeys(row.dataset for row in first))}; B has "
            f"{', '.join(dict.fromkeys(row.dataset for row in second))}."
        )
    mean = average_difference(found)
    alone = unmatched(first, second, options.ignore)
    if options.json:
        print(json.dumps(_as_json(name, other, found, mean, alone), indent=2, allow_nan=False))
    else:
        print(render(name, other, found, mean, alone))
    return _exit_code(found, alone[0]) if options.fail_if_worse else 0


def _exit_code(found: Sequence[Comparison], only_a: Sequence[str]) -> int:
    """Of `--fail-if-worse`: 1 where B is worse on any data set, 2 where that could not be asked of any."""
    if only_a:
        print(f"clip-eval compare: B was not compared on what only A has: {'; '.join(only_a)}.", file=sys.stderr)
    if any(entry.verdict == "A better" for entry in found):
        return 1
    if any(entry.p is not None for entry in found):
        return 0
    reasons = "; ".join(dict.fromkeys(entry.reason for entry in found if entry.reason))
    print(
        f"clip-eval compare: whether B is worse could not be tested on any data set: {reasons}. Evaluate both models "
        "on the same data with the same prompts.",
        file=sys.stderr,
    )
    return 2


def _models(results: Sequence[Path], wanted: Sequence[str] | None) -> tuple[tuple[str, list[Row]], ...]:
    """Names and rows of A and B."""
    from clip_core.errors import ConfigError
    from clip_eval.records.matching import models_of
    from clip_eval.records.readers import read_rows

    if len(results) > 2 or (wanted is not None and len(wanted) > 2):
        raise ConfigError("Two models are compared: give A and B, or one folder and --models A B.")
    sides = [models_of(read_rows([path])) for path in results]
    if len(sides) == 1:
        if wanted is None and len(sides[0]) == 2:
            return tuple(sorted(sides[0], key=lambda side: side[0]))
        if wanted is None or len(wanted) == 1:
            raise ConfigError(f"{results[0]} holds {_listed(sides[0])}; say which two with --models A B.")
        sides = [sides[0], sides[0]]
    asked = [None, None] if wanted is None else [wanted[0], wanted[-1]]
    return tuple(
        _chosen(models, name, path) for models, name, path in zip(sides, asked, (results[0], results[-1]), strict=True)
    )


def _chosen(models: Sequence[tuple[str, list[Row]]], wanted: str | None, path: Path) -> tuple[str, list[Row]]:
    from clip_core.errors import ConfigError

    fitting = [
        (name, rows)
        for name, rows in models
        if wanted is None or wanted == name or any(wanted in (row.model_name, row.model) for row in rows)
    ]
    exact = [(name, rows) for name, rows in fitting if wanted == name]
    if len(exact) == 1 or len(fitting) == 1:
        return (exact or fitting)[0]
    if not fitting:
        raise ConfigError(f"{path} has no results of the model {wanted!r}; it holds {_listed(models)}.")
    raise ConfigError(f"{path} holds {_listed(fitting)}; say which one is compared with --models.")


def _listed(models: Sequence[tuple[str, list[Row]]]) -> str:
    names = [name for name, _ in models]
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f"{len(names)} model{'s' if len(names) > 1 else ''}: {shown}"


def _as_json(
    name: str,
    other: str,
    found: Sequence[Comparison],
    mean: Comparison | None,
    alone: Sequence[Sequence[str]],
) -> dict[str, Any]:
    return {
        "a": name,
        "b": other,
        "comparisons": [entry.to_json() for entry in found],
        "average": None if mean is None else mean.to_json(),
        "only_a": alone[0],
        "only_b": alone[1],
        "no_common_metric": alone[2],
    }


def render(
    name: str,
    other: str,
    found: Sequence[Comparison],
    mean: Comparison | None = None,
    alone: Sequence[Sequence[str]] = ((), (), ()),
) -> str:
    """The comparison as aligned text, at most about 110 columns wide, with notes on how the tests were made."""
    from clip_eval.records.overview import SHORT_NAMES

    head = ("data set", "metric", "A", "B", "B - A", "95 % interval", "p", "verdict")
    body = [
        (
            entry.title,
            SHORT_NAMES.get(entry.metric, entry.metric),
            _number(entry.first.value, entry),
            _number(entry.second.value, entry),
            _signed(entry.difference, entry),
            "-" if entry.low is None else f"{_signed(entry.low, entry)} to {_signed(entry.high, entry)}",
            _p(entry.adjusted),
            _words(entry),
        )
        for entry in (*found, *(() if mean is None else (mean,)))
    ]
    lines = aligned((head, *body), right=(2, 3, 4, 5, 6))
    return "\n".join(
        [f"A  {name}", f"B  {other}", "", *lines, "", *(textwrap.fill(note, 110) for note in _notes(found, alone))]
    )


def _share(entry: Comparison) -> bool:
    from clip_eval.records.rows import is_share

    return is_share(entry.metric)


def _number(value: float, entry: Comparison) -> str:
    return f"{100 * value:.1f}" if _share(entry) else f"{value:.1f}"


def _signed(value: float | None, entry: Comparison) -> str:
    if value is None:
        return "-"
    text = f"{100 * value if _share(entry) else value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _words(entry: Comparison) -> str:
    if entry.verdict in ("not comparable", "not tested"):
        return f"{entry.verdict}: {entry.reason}" if len(entry.reason) <= _REASON else entry.verdict
    return f"{entry.verdict} (unpaired)" if entry.test == "unpaired" else entry.verdict


def _notes(found: Sequence[Comparison], alone: Sequence[Sequence[str]]) -> list[str]:
    tests = [entry for entry in found if entry.p is not None and entry.main]
    notes = ["Shares in per cent, differences in points."]
    if tests:
        notes.append(f"p: Holm's correction over {len(tests)} tests; below 0.05 a difference is more than noise.")
    paired = [entry for entry in found if entry.clusters is not None]
    if paired:
        names = " and ".join(dict.fromkeys(entry.test for entry in paired))
        notes.append(f"Paired on the same images: {names}; intervals by the bootstrap over images, each alone.")
    if any(entry.test == "unpaired" for entry in found):
        notes.append("Unpaired: what each query scored is not known on both sides, so small differences go unseen.")
    for entry in found:
        if entry.p is None and len(entry.reason) > _REASON:
            notes.append(f"{entry.title} is {entry.verdict}: {entry.reason}.")
    for words, titles in zip(("Only A has", "Only B has", "No metric in common"), alone, strict=True):
        if titles:
            notes.append(f"{words}: {'; '.join(titles)}.")
    return notes
