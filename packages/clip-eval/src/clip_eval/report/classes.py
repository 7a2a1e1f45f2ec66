"""What a classification record says about single classes: recall, average precision, confusions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["ClassTable", "class_table", "confusions", "matrix"]

_MATRIX_CLASSES = 15
"""Up to here a confusion matrix can be read on a phone; beyond, the most frequent confusions are listed."""
_WHOLE_TABLE = 30
_ENDS = 10
_BLANK = "(blank name)"


@dataclass(frozen=True, slots=True)
class ClassTable:
    """Classes with one number each."""

    value: str
    """What the number is: "Recall" or "Average precision"."""
    whole: list[dict[str, Any]]
    """All classes in their order; folded where `worst` and `best` say the essential."""
    worst: list[dict[str, Any]]
    best: list[dict[str, Any]]
    empty: int
    """Classes without any picture."""


def class_table(details: Mapping[str, Any]) -> ClassTable | None:
    """The table of classes; None where the record has none."""
    classes = details.get("classes")
    if not isinstance(classes, list) or not classes:
        return None
    key = next((name for name in ("recall", "average_precision", "ap") if name in classes[0]), None)
    if key is None:
        return None
    rows = [_row(entry, key) for entry in classes]
    scored = sorted((row for row in rows if row["value"] is not None), key=lambda row: (row["value"], -row["n"]))
    folded = len(rows) > _WHOLE_TABLE
    return ClassTable(
        value="Recall" if key == "recall" else "Average precision",
        whole=rows,
        worst=scored[:_ENDS] if folded else [],
        best=scored[: -_ENDS - 1 : -1] if folded else [],
        empty=sum(row["value"] is None for row in rows),
    )


def _row(entry: Mapping[str, Any], key: str) -> dict[str, Any]:
    value, low, high = (None if entry.get(name) is None else float(entry[name]) for name in (key, "low", "high"))
    count = entry.get("n", entry.get("positives", 0))
    return {"name": str(entry["name"]) or _BLANK, "n": int(count), "value": value, "low": low, "high": high}


def matrix(details: Mapping[str, Any]) -> list[tuple[str, list[dict[str, Any]]]] | None:
    """Class names with rows of cells: the count, and its share of the row, which is the depth of the colour."""
    counts = _confusion(details)
    if counts is None or len(counts) > _MATRIX_CLASSES:
        return None
    names = _names(details)
    return [
        (
            names[line],
            [
                {"count": count, "share": count / max(1, sum(row)), "diagonal": place == line}
                for place, count in enumerate(row)
            ],
        )
        for line, row in enumerate(counts)
    ]


def confusions(details: Mapping[str, Any], most: int = 10) -> list[dict[str, Any]] | None:
    """The most frequent mistakes, from the matrix or from the pairs that a record of many classes states."""
    names = _names(details)
    counts = _confusion(details)
    found: list[dict[str, Any]]
    if counts is not None:
        found = [
            {"truth": names[line], "guess": names[place], "count": count, "of": sum(row)}
            for line, row in enumerate(counts)
            for place, count in enumerate(row)
            if count and place != line
        ]
    elif "confusions" in details:
        found = [
            {
                "truth": str(pair["truth"]),
                "guess": str(pair["guess"]),
                "count": int(pair["count"]),
                "of": int(pair["of"]),
            }
            for pair in details["confusions"]
        ]
    else:
        return None
    return sorted(found, key=lambda entry: -entry["count"])[:most]


def _names(details: Mapping[str, Any]) -> list[str]:
    classes = details.get("classes")
    return [str(entry["name"]) or _BLANK for entry in classes] if isinstance(classes, list) else []


def _confusion(details: Mapping[str, Any]) -> list[list[int]] | None:
    rows: Sequence[Sequence[Any]] | None = details.get("confusion")
    if not isinstance(rows, list):
        return None
    counts = [[int(count) for count in row] for row in rows]
    if any(len(row) != len(counts) for row in counts) or len(counts) != len(_names(details)):
        raise ValueError("the confusion matrix does not fit the classes")
    return counts
