"""Numbers by group: of pictures (a region, an income), of questions (a category), as rows with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clip_eval.report.numbers import Number, read_number, words

__all__ = ["GroupTable", "group_tables"]


@dataclass(frozen=True, slots=True)
class GroupTable:
    """One way to group."""

    title: str
    metric: str
    rows: list[dict[str, Any]]
    """{"name", "n", "value", "low", "high"}, shares."""


def group_tables(details: Mapping[str, Any]) -> list[GroupTable]:
    """Those of `details["groups"]` and `details["categories"]`."""
    found = []
    for name, entries in (details.get("groups") or {}).items():
        rows = [_row(str(entry["name"]), read_number("acc1", {"interval": "", **entry})) for entry in entries]
        metric = "Within the first 5" if str(entries[0].get("key", "")).startswith("acc_top5") else "Accuracy"
        found.append(GroupTable(f"By {str(name).replace('_', ' and ')}", metric, rows))
    categories: Mapping[str, Mapping[str, Any]] = details.get("categories") or {}
    metrics = list(dict.fromkeys(metric for values in categories.values() for metric in values))
    for metric in metrics:
        rows = [
            _row(str(name) or "(no name)", read_number(metric, values[metric]))
            for name, values in categories.items()
            if metric in values
        ]
        found.append(GroupTable("By category", words(metric).label, rows))
    return [table for table in found if table.rows]


def _row(name: str, number: Number) -> dict[str, Any]:
    return {"name": name, "n": number.n, "value": number.value, "low": number.low, "high": number.high}
