"""Which results of two models belong together, and what stands against comparing them.

What is not here: comparing them (`clip_eval.compare`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clip_eval.published import NOT_COMPARABLE
from clip_eval.records.reading import SavedRecord
from clip_eval.records.rows import Row

__all__ = ["IGNORABLE", "key_of", "models_of", "obstacle", "pairs", "several_tasks", "title_of", "unmatched"]

IGNORABLE = ("prompts", "settings", "language")
"""What two results may differ in and be compared all the same, if asked for."""

# The same measurement, whatever these say: prompts and language are compared by themselves.
_NO_SETTINGS = ("ks", "language", "templates", "prompts", "classnames")


def models_of(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """The models among `rows`, each with its rows; records of one name are told apart by their weights and precision.

    Returns:
        Pairs (name, rows) in the order of the rows; where two share a name, it has the beginning of their hashes too.
    """
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.model_name, row.source, *_identity(row.record)), []).append(row)
    names = [key[0] for key in groups]
    sources = {key[1] for key in groups}
    named = []
    for key, held in groups.items():
        name, source, *rest = key
        if names.count(name) > 1:
            alike = [other for other in groups if other[0] == name]
            if len(sources) > 1 and len({other[1] for other in alike}) > 1:
                name = f"{name} [{source}]"
            if len({other[2:] for other in alike if other[1] == source}) > 1:
                name = f"{name} ({', '.join(part[:12] for part in rest)})"
        named.append((name, held))
    return named


def _identity(record: SavedRecord | None) -> tuple[str, ...]:
    if record is None:
        return ()
    model, precision = record.data["model"], record.data.get("precision", {})
    return str(model.get("weights_sha256")), str(precision.get("towers") or precision.get("model"))


def key_of(row: Row, ignore: Sequence[str]) -> tuple[str, ...]:
    """What two results must share to be of the same task: data set, split, task, language, objective."""
    language = "" if "language" in ignore else row.language or "en"
    return row.dataset, row.split, row.task, language, str(row.settings.get("objective") or "")


def several_tasks(rows: Sequence[Row]) -> set[str]:
    """The data sets on which more than one task was asked."""
    tasks: dict[str, set[str]] = {}
    for row in rows:
        tasks.setdefault(row.dataset, set()).add(row.task)
    return {dataset for dataset, found in tasks.items() if len(found) > 1}


def title_of(row: Row, several: bool) -> str:
    """A row's key for people; with the task where its data set has `several`, unless it is zero-shot."""
    parts = [row.entry.title if row.entry is not None else row.dataset]
    if row.settings.get("objective"):
        parts.append(str(row.settings["objective"]))
    if several and row.task != "zero_shot_classification":
        parts.append(row.task.replace("_", " "))
    if row.split != "test":
        parts.append(row.split)
    if (row.language or "en") != "en":
        parts.append(str(row.language))
    return ", ".join(parts)


def pairs(first: Sequence[Row], second: Sequence[Row], ignore: Sequence[str]) -> list[tuple[Row, Row]]:
    """Each row of A with the row of B that it can be compared with, or else with any of the same data set."""
    pairs = []
    taken: set[int] = set()
    for a in first:
        # Without a record, a peer's table may state further metrics of the same run in a row of its own.
        fitting = [b for b in second if key_of(b, ignore) == key_of(a, ignore) and set(a.metrics) & set(b.metrics)]
        fitting.sort(key=lambda b: (id(b) in taken, bool(obstacle(a, b, ignore))))
        if fitting:
            taken.add(id(fitting[0]))
            pairs.append((a, fitting[0]))
    return pairs


def obstacle(a: Row, b: Row, ignore: Sequence[str]) -> str:
    """Why two results cannot be compared; empty where they can, or where nothing is known against it."""
    if a.record is None or b.record is None:
        unlike = a.source != b.source and a.task == "zero_shot_classification"
        return NOT_COMPARABLE.get(a.dataset, "") if unlike else ""
    one, two = a.record.data["dataset"], b.record.data["dataset"]
    if one.get("shards_sha256") != two.get("shards_sha256") or one.get("samples") != two.get("samples"):
        return "different data"
    left = [(facts.get("excluded", {}).get("count"), facts.get("excluded", {}).get("sha256")) for facts in (one, two)]
    if left[0][0] != left[1][0] or (None not in (left[0][1], left[1][1]) and left[0][1] != left[1][1]):
        return "different exclusions"
    if "prompts" not in ignore and a.record.prompts_id != b.record.prompts_id:
        return "different prompts"
    # Class names are a part of the prompts, and the rest of what is asked of classes lies in the shards.
    asked = "prompts" in ignore and one.get("kind") in ("classification", "multilabel")
    if not asked and "language" not in ignore and _differ(one, two, "contents_sha256"):
        return "different data"
    sources = [facts.get("learnt_from") or {} for facts in (one, two)]
    for role in ("train", "validation"):
        a_role, b_role = (source.get(role) or {} for source in sources)
        if any(_differ(a_role, b_role, name) for name in ("shards_sha256", "samples")):
            return "different training data"
    if "settings" not in ignore:
        names = [name for name in {**a.settings, **b.settings} if name not in _NO_SETTINGS]
        if other := sorted(name for name in names if a.settings.get(name) != b.settings.get(name)):
            return f"different settings: {', '.join(other)}"
    return ""


def _differ(one: Mapping[str, Any], two: Mapping[str, Any], name: str) -> bool:
    """Whether both state `name`, and not the same."""
    return None not in (one.get(name), two.get(name)) and one[name] != two[name]


def unmatched(
    first: Sequence[Row], second: Sequence[Row], ignore: Sequence[str] = ()
) -> tuple[list[str], list[str], list[str]]:
    """Titles of what only A has, of what only B has, and of what both have without a metric in common."""
    several = several_tasks([*first, *second])
    titles: list[dict[tuple[str, ...], str]] = []
    metrics: list[dict[tuple[str, ...], set[str]]] = []
    for rows in (first, second):
        titles.append({key_of(row, ignore): title_of(row, row.dataset in several) for row in rows})
        held: dict[tuple[str, ...], set[str]] = {}
        for row in rows:
            held.setdefault(key_of(row, ignore), set()).update(row.metrics)
        metrics.append(held)
    both = [key for key in titles[0] if key in titles[1]]
    return (
        [title for key, title in titles[0].items() if key not in titles[1]],
        [title for key, title in titles[1].items() if key not in titles[0]],
        [titles[0][key] for key in both if not metrics[0][key] & metrics[1][key]],
    )
