"""What the command line shows of the catalogue: one line of a table, a card of one data set, or plain values."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import Any

from clip_core.errors import ConfigError
from clip_eval.catalogue.entry import Entry
from clip_eval.catalogue.finding import entries
from clip_eval.columns import aligned
from clip_eval.prompts import languages_for, prompts_for
from clip_eval.published import NOT_COMPARABLE, published_metric, published_rows, tolerance_for
from clip_eval.suites import SUITES

__all__ = ["LEGEND", "as_values", "card", "matching", "table"]

LEGEND = (
    "size: images of the test split (examples of caption choice, riddles of association); chance: what guessing scores "
    "on the main metric; lang: languages of prompts or captions; -: not known, or none."
)
_KINDS = {"caption_choice": "caption choice"}
_WIDTH = 100


def matching(text: str, among: Sequence[Entry] | None = None) -> list[Entry]:
    """The rows that have every word of `text` in a name, the title, the kind, the type, the metric or a suite.

    Raises `ConfigError` when there is none.
    """
    words = text.lower().split()
    found = [
        entry for entry in (entries() if among is None else among) if all(word in _searched(entry) for word in words)
    ]
    if not found:
        raise ConfigError(f"No data set matches {text!r}; `clip-eval list` shows them all.")
    return found


def _searched(entry: Entry) -> str:
    own = (entry.name, entry.title, entry.kind, entry.type, entry.main_metric, entry.datacomp, *entry.aliases)
    return " ".join([*own, *_suites(entry)]).lower()


def _suites(entry: Entry) -> list[str]:
    return [name for name, suite in SUITES.items() if entry.name in suite.datasets]


def table(rows: Sequence[Entry]) -> list[str]:
    """The lines of a table with a heading and a rule."""
    cells = [("name", "title", "task", "classes", "size", "main metric", "chance", "lang"), *map(_cells, rows)]
    lines = aligned(cells, right=(3, 4, 6, 7))
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def _cells(entry: Entry) -> tuple[str, ...]:
    return (
        entry.name,
        entry.title,
        _KINDS.get(entry.kind, entry.kind),
        "-" if entry.classes is None else f"{entry.classes:,}",
        "-" if entry.test is None else f"{entry.test:,}",
        entry.main_metric,
        _chance(entry),
        str(len(entry.languages)),
    )


def _chance(entry: Entry) -> str:
    return "-" if entry.chance is None else f"{entry.chance:.4f}"


def card(entry: Entry) -> str:
    """All that is known of one data set, for reading."""
    facts = [
        ("name", entry.name),
        ("task", f"{_KINDS.get(entry.kind, entry.kind)} ({entry.type})"),
        ("size", _size(entry)),
        ("main metric", entry.main_metric + ("" if entry.chance is None else f", {_chance(entry)} by guessing")),
        ("prompts", _prompts(entry)),
        ("languages", textwrap.shorten(", ".join(entry.languages), 200, placeholder=" ...")),
        ("groups", _groups(entry)),
        ("objectives", ", ".join(entry.objectives)),
        ("suites", ", ".join(_suites(entry))),
        ("Hub", f"{entry.hub} (wds)" if entry.hub else ""),
        ("DataComp", f"{entry.mirror} ({'wds' if entry.mirror_is_wds else 'to be built'})" if entry.mirror else ""),
        ("fetched from", entry.address or entry.build or "nowhere: it has to be built from its source"),
        ("source", entry.source),
        ("licence", entry.licence or "not known"),
        ("published", _published(entry)),
    ]
    lines = [entry.title, "=" * len(entry.title)]
    for label, text in facts:
        if text:
            lines += textwrap.wrap(text, _WIDTH, initial_indent=f"{label:<14}", subsequent_indent=" " * 14)
    for note in entry.notes:
        lines += textwrap.wrap(note, _WIDTH, initial_indent=f"{'note':<14}", subsequent_indent=" " * 14)
    return "\n".join(lines)


def _size(entry: Entry) -> str:
    unit = {"caption_choice": "examples", "association": "riddles"}.get(entry.kind, "images")
    parts = [f"{entry.test:,} {unit}" if entry.test is not None else ""]
    parts += [f"{entry.captions:,} captions" if entry.captions else ""]
    parts += [f"{entry.classes:,} classes" if entry.classes else ""]
    return ", ".join(filter(None, parts))


def _prompts(entry: Entry) -> str:
    if entry.kind not in ("classification", "multilabel"):
        return ""
    classnames, templates = prompts_for(entry.name)
    names = "class names of the data set itself" if classnames is None else f"{len(classnames)} class names"
    if templates is None:
        return f"{names}; templates of the data set itself"
    first = next(iter(templates))
    return f"{names}; {len(templates)} template{'s' if len(templates) > 1 else ''}, the first {first!r}"


def _groups(entry: Entry) -> str:
    if entry.groups is None:
        return ""
    return "by " + ", by ".join(" and ".join(fields) for fields in entry.groups.by)


def _published(entry: Entry) -> str:
    if entry.name in NOT_COMPARABLE:
        return "not comparable, see the note"
    scores = [score for row in published_rows() if (score := row.score(entry.name)) is not None]
    if not scores:
        return ""
    tolerance = tolerance_for(entry.name)
    how = "two tables differ by up to" if tolerance.measured else "tolerance, not measured on this set:"
    return (
        f"{published_metric(entry.name)} of {len(scores)} sets of weights, {min(scores):.4f} to {max(scores):.4f}; "
        f"{how} {tolerance.value:.4f}"
    )


def as_values(entry: Entry) -> dict[str, Any]:
    """The row as plain types for JSON, with what follows from it."""
    return {
        **dataclasses.asdict(entry),
        "suites": _suites(entry),
        "prompt_languages": list(languages_for(entry.name)),
        "hub": entry.hub,
        "mirror": entry.mirror,
        "address": entry.address,
    }
