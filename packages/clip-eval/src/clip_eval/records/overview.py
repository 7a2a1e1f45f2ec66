"""Results as a table for people: data sets by models, text or markdown, with intervals, averages and notes.

What is not here: one line for each number (`tables`), the comparison of two models (`clip_eval.compare`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clip_eval.catalogue import names
from clip_eval.records.averages import average, main_score, official_score
from clip_eval.records.facts import json_sha256
from clip_eval.records.rows import Row, Score, is_share
from clip_eval.records.tables import chosen_metrics
from clip_eval.suites import Suite

__all__ = ["SHORT_NAMES", "format_score", "in_catalogue_order", "overview"]

SHORT_NAMES = {
    "mean_per_class_recall": "mean recall",
    "mean_average_precision": "mAP",
    "lp_mean_per_class_recall": "lp mean recall",
    **{
        f"{to}_retrieval_recall@{k}": f"{word} R@{k}"
        for to, word in (("image", "to image"), ("text", "to text"))
        for k in (1, 5, 10)
    },
    "image_retrieval_median_rank": "to image, median rank",
    "text_retrieval_median_rank": "to text, median rank",
}
"""Names of metrics for people, where the table would be too wide with the full ones."""


def format_score(score: Score | None, *, share: bool, digits: int = 1) -> str:
    """A value with its limits, in per cent for a share, such as "63.3 (62.9-63.7)"; "-" for none."""
    if score is None:
        return "-"
    scale = 100 if share else 1
    value = f"{scale * score.value:.{digits}f}"
    if score.low is None or score.high is None:
        return value
    return f"{value} ({scale * score.low:.{digits}f}-{scale * score.high:.{digits}f})"


def overview(
    rows: Sequence[Row],
    *,
    metrics: str | Sequence[str] = "main",
    suite: Suite | None = None,
    digits: int = 1,
    width: int = 100,
    markdown: bool = False,
) -> str:
    """Data sets by models: values in per cent with their 95 % intervals, averages below, notes at the end.

    Models that do not fit into `width` columns stand in further tables. Averages are of main metrics: over the data
    sets that all models have, or those that `suite` names.
    """
    rows = in_catalogue_order(rows) if suite is None else rows
    places = list(zip(rows, _labels(rows), _headings(rows), strict=True))
    models = list(dict.fromkeys(heading for _, _, heading in places))
    cells: dict[tuple[str, str], dict[str, tuple[Score, Row]]] = {}
    for row, label, heading in places:
        for name in chosen_metrics(row, metrics):
            cells.setdefault((label, name), {}).setdefault(heading, (row.metrics[name], row))
    body = [
        (
            label,
            SHORT_NAMES.get(name, name),
            _count(list(found.values())),
            *(format_score(_first(found.get(model)), share=is_share(name), digits=digits) for model in models),
        )
        for (label, name), found in cells.items()
    ]
    body += [
        (label, "", "", *(format_score(by_model.get(model), share=True, digits=digits) for model in models))
        for label, by_model in _averages(places, models, suite)
    ]
    blocks = _blocks(("data set", "metric", "N"), models, body, width, markdown)
    return "\n\n".join([*blocks, *_notes(rows, cells, digits)])


def in_catalogue_order(rows: Sequence[Row]) -> list[Row]:
    """Data sets of the catalogue in its order, then all others as they come."""
    places = {name: place for place, name in enumerate(names())}
    return sorted(rows, key=lambda row: places.get(row.dataset, len(places)))


def _headings(rows: Sequence[Row]) -> list[str]:
    """Of each row the model, with the origin of the numbers where the rows have several."""
    several = len({row.source for row in rows}) > 1
    return [f"{row.model_name} [{row.source}]" if several else row.model_name for row in rows]


def _labels(rows: Sequence[Row]) -> list[str]:
    """Of each row the data set, with whatever tells it from the others of its model."""
    tasks: dict[str, set[str]] = {}
    languages: dict[str, set[str]] = {}
    settings: dict[tuple[str, ...], set[str]] = {}
    for row in rows:
        tasks.setdefault(row.dataset, set()).add(row.task)
        languages.setdefault(row.dataset, set()).add(row.language or "en")
        settings.setdefault(_group(row), set()).add(_settings(row))
    labels = []
    for row in rows:
        parts = [row.entry.title if row.entry is not None else row.dataset]
        if len(tasks[row.dataset]) > 1:
            parts.append(row.task.replace("_", " "))
        if row.settings.get("objective"):
            parts.append(str(row.settings["objective"]))
        if row.split != "test":
            parts.append(row.split)
        if languages[row.dataset] != {"en"}:
            parts.append(row.language or "en")
        if len(settings[_group(row)]) > 1:
            shots = row.settings.get("fewshot_k") or -1
            parts += [f"{shots} shots"] if shots > 0 else []
            parts.append(_settings(row))
        labels.append(", ".join(parts))
    return labels


def _group(row: Row) -> tuple[str, ...]:
    objective = str(row.settings.get("objective") or "")
    return row.dataset, row.task, row.split, row.language or "en", objective, row.source


def _settings(row: Row) -> str:
    """A short name for the prompts and settings; equal for equal ones."""
    prompts = row.record.prompts_id if row.record is not None else None
    return json_sha256([prompts, dict(row.settings)])[:6]


def _first(found: tuple[Score, Row] | None) -> Score | None:
    return None if found is None else found[0]


def _count(found: Sequence[tuple[Score, Row]]) -> str:
    counts = sorted({score.n for score, _ in found if score.n is not None})
    return "" if not counts else str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"


def _averages(
    places: Sequence[tuple[Row, str, str]], models: Sequence[str], suite: Suite | None
) -> list[tuple[str, dict[str, Score]]]:
    """Lines below the table: their label, and the score of each model that has one."""
    if suite is not None:
        held: dict[str, dict[str, Score]] = {}
        for row, _, heading in places:
            if (score := official_score(row)) is not None:
                held.setdefault(heading, {}).setdefault(row.dataset, score)
        named = {
            f"{name} ({len(members)})": {
                model: average([found[member] for member in members])
                for model, found in held.items()
                if all(member in found for member in members)
            }
            for name, members in suite.aggregates.items()
        }
        return [(name, by_model) for name, by_model in named.items() if by_model]
    scores: dict[str, dict[str, Score]] = {}
    for row, label, heading in places:
        if (score := main_score(row)) is not None:
            scores.setdefault(heading, {}).setdefault(label, score)
    shared = set.intersection(*(set(scores.get(model, {})) for model in models)) if models else set()
    if len(shared) < 2:
        return []
    label = f"average of {len(shared)}"
    return [(label, {model: average([scores[model][name] for name in sorted(shared)]) for model in models})]


def _blocks(
    head: tuple[str, ...], models: Sequence[str], body: Sequence[tuple[str, ...]], width: int, markdown: bool
) -> list[str]:
    """Tables of at most `width` columns; in text a model's tag stands below it."""
    fixed = len(head)
    tops = [[name] if markdown else [*name.replace(" [", ":[").split(":")] for name in models]
    sizes = [max(map(len, [*top, *(line[fixed + at] for line in body)])) for at, top in enumerate(tops)]
    left = [max(map(len, [head[at], *(line[at] for line in body)])) for at in range(fixed)]
    gap = 3 if markdown else 2
    room = width - sum(left) - gap * fixed
    groups: list[list[int]] = [[]]
    for at, size in enumerate(sizes):
        if groups[-1] and sum(sizes[place] + gap for place in groups[-1]) + size > room:
            groups.append([])
        groups[-1].append(at)
    blocks = []
    for group in groups:
        # A line of dashes alone says nothing.
        kept = [line for line in body if any(line[fixed + at] != "-" for at in group)]
        widths = [*left, *(sizes[at] for at in group)]
        height = max((len(tops[at]) for at in group), default=1)
        heads = [
            (*(head if row == 0 else [""] * fixed), *((tops[at] + [""] * height)[row] for at in group))
            for row in range(height)
        ]
        lines = [_line(cells, widths, markdown) for cells in heads]
        if markdown:
            lines.append(
                "|" + "|".join("-" * (size + 1) + (":" if at > 1 else "-") for at, size in enumerate(widths)) + "|"
            )
        lines += [_line((*line[:fixed], *(line[fixed + at] for at in group)), widths, markdown) for line in kept]
        blocks.append("\n".join(lines))
    return blocks


def _line(cells: Sequence[str], widths: Sequence[int], markdown: bool) -> str:
    """Texts to the left, numbers to the right."""
    padded = [
        cell.ljust(size) if at < 2 else cell.rjust(size)
        for at, (cell, size) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |" if markdown else "  ".join(padded).rstrip()


def _notes(
    rows: Sequence[Row], cells: Mapping[tuple[str, str], Mapping[str, tuple[Score, Row]]], digits: int
) -> list[str]:
    """What a reader of the numbers has to know: their unit, ties, pictures left out."""
    notes = ["Shares in per cent; in brackets the 95 % interval, where the number of queries is known."]
    for (label, name), found in cells.items():
        for model, (score, _) in found.items():
            if score.optimistic is None or score.pessimistic is None or not is_share(name):
                continue
            if 100 * (score.optimistic - score.pessimistic) >= 10**-digits:
                bounds = f"{100 * score.pessimistic:.{digits}f} and {100 * score.optimistic:.{digits}f}"
                notes.append(f"Ties: {label}, {name} of {model} lies between {bounds}.")
    for row in rows:
        count = 0 if row.record is None else row.record.data["dataset"].get("excluded", {}).get("count", 0)
        if count:
            notes.append(f"Left out: {count} images of {row.dataset} for {row.model_name}; they do not decode.")
    return ["\n".join(dict.fromkeys(notes))]
