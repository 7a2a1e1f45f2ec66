"""Compares results with the published row of the same weights: whether this installation measures what others did.

A difference is allowed that has the size of two known errors together, as the root of their squares: the tolerance of
the data set (`clip_eval.published.tolerances`) and the half width of the score's 95 % interval towards the published
one. The second is generous, because both scores are of the same images; `strict` leaves it out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from clip_core.errors import ConfigError
from clip_eval.catalogue import Entry, names
from clip_eval.columns import aligned
from clip_eval.metrics import wilson
from clip_eval.prompts import prompts_for
from clip_eval.published import NOT_COMPARABLE, PublishedRow, published_row, split_model, tolerance_for
from clip_eval.records import Row, Score

__all__ = ["Check", "Verdict", "failures", "regress", "summary", "table"]

Verdict = Literal["agrees", "within error", "differs", "not comparable", "not published"]

_ROUNDING = 0.5e-4
"""Published scores have four decimals."""
_TASKS = ("zero_shot_classification", "retrieval", "association")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One number beside the published one."""

    model: str
    """Name of the published row, `model:tag`."""
    dataset: str
    language: str
    metric: str
    value: float | None
    """None where a whole result could not be compared."""
    published: float | None
    allowed: float | None
    """The largest difference that means nothing."""
    verdict: Verdict
    note: str = ""
    """Why it could not be compared, or what to know of the comparison."""

    @property
    def difference(self) -> float | None:
        """Here minus published."""
        return None if self.value is None or self.published is None else self.value - self.published

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {**asdict(self), "difference": self.difference}


def regress(
    rows: Sequence[Row], *, model: str | None = None, tag: str | None = None, strict: bool = False
) -> list[Check]:
    """Every published number of the results' data sets beside the result, in the order of the catalogue.

    model, tag: which published row the results belong to; by default the one that each result's model is called by.
    strict: allow the tolerance alone.

    Raises:
        ConfigError: no published row of that name, results of several models for the one row that was given, or
            nothing at all that can be compared.
    """
    found: list[Check] = []
    order = {name: place for place, name in enumerate(names())}
    known = [row for row in rows if row.entry is not None and row.task in _TASKS]
    for row in sorted(known, key=lambda row: order[row.dataset]):
        published = _published_row(row, rows, model, tag)
        if published is not None and row.entry is not None:
            found += _check(row, row.entry, published, strict)
    if not any(check.value is not None for check in found):
        held = sorted({f"{row.model_name} on {row.dataset}" for row in rows})
        shown = "; ".join(held[:4]) + ("; ..." if len(held) > 4 else "")
        reasons = sorted({check.note for check in found if check.note})
        why = f" ({'; '.join(reasons[:3])})" if reasons else ""
        raise ConfigError(
            f"None of the {len(rows)} results ({shown}) can be compared with a published score{why}. Say which weights "
            "they are of with --model and --tag; `clip-eval show NAME` says what was published for a data set."
        )
    return found


def _published_row(row: Row, rows: Sequence[Row], model: str | None, tag: str | None) -> PublishedRow | None:
    if model is not None:
        given = (model, tag) if tag is not None else split_model(model)
        if given is None:
            raise ConfigError(f"--model {model} needs its tag: --tag TAG, or --model MODEL:TAG.")
        others = sorted({other.model_name for other in rows})
        if len(others) > 1:
            raise ConfigError(
                f"One published row was chosen, and the results are of {len(others)} models: {', '.join(others[:5])}. "
                "Give the results of one."
            )
        return published_row(*given)
    try:
        return published_row(row.model, row.pretrained)
    except ConfigError:
        return None


def _check(row: Row, entry: Entry, published: PublishedRow, strict: bool) -> list[Check]:
    name, language = f"{published.model}:{published.tag}", row.language or "en"
    scores = published.scores.get(entry.name, {}).get(language, {})

    def one(metric: str, verdict: Verdict, note: str) -> Check:
        return Check(
            model=name,
            dataset=entry.name,
            language=language,
            metric=metric,
            value=None,
            published=scores.get(metric),
            allowed=None,
            verdict=verdict,
            note=note,
        )

    if not scores:
        return [one(entry.main_metric, "not published", f"no published score in {language}")]
    if reason := _not_comparable(row, entry):
        return [one(next(iter(scores)), "not comparable", reason)]
    shared = [metric for metric in scores if metric in row.metrics]
    if not shared:
        return [one(next(iter(scores)), "not comparable", f"the result has no {' or '.join(scores)}")]
    facts: dict[str, str] = {"model": name, "language": language, "note": _class_names(row, entry)}
    return [_compare(row.metrics[metric], scores[metric], entry, strict, metric=metric, **facts) for metric in shared]


def _not_comparable(row: Row, entry: Entry) -> str:
    """Why a result measures something else than what was published; empty where it does not."""
    if entry.name in NOT_COMPARABLE:
        return NOT_COMPARABLE[entry.name]
    if row.split != "test":
        return f"measured on the split {row.split}"
    if row.record is None or row.task != "zero_shot_classification":
        return ""
    details = row.record.data.get("details", {})
    usual = prompts_for(entry.name)
    templates = details.get("templates")
    if usual.templates is not None and [line.strip() for line in templates or ()] != [
        line.strip() for line in usual.templates
    ]:
        return "measured with other templates"
    return ""


def _class_names(row: Row, entry: Entry) -> str:
    """A note where the class names are not the catalogue's: copies of a data set differ in a few."""
    if row.record is None or row.task != "zero_shot_classification":
        return ""
    own = [one.get("name") for one in row.record.data.get("details", {}).get("classes") or ()]
    usual = prompts_for(entry.name).classnames
    if usual is None or not own or own == [name.strip() for name in usual]:
        return ""
    return f"{sum(a != b for a, b in zip(own, usual, strict=False))} class names differ from CLIP_benchmark's"


def _compare(
    score: Score, published: float, entry: Entry, strict: bool, *, model: str, language: str, metric: str, note: str
) -> Check:
    tolerance = tolerance_for(entry.name)
    sampling = 0.0 if strict else _half_width(score, published, entry)
    allowed = math.hypot(tolerance.value, sampling) + _ROUNDING
    gap = abs(score.value - published)
    verdict: Verdict = "differs" if gap > allowed else "agrees"
    if verdict == "agrees" and gap > tolerance.value + _ROUNDING:
        verdict = "within error"
    notes = [note] if note else []
    if not tolerance.measured:
        notes.append("no second table: the largest tolerance known")
    if entry.kind == "classification" and score.n is not None and entry.test not in (None, score.n):
        notes.append(f"{score.n:,} of {entry.test:,} images")
    return Check(
        model=model,
        dataset=entry.name,
        language=language,
        metric=metric,
        value=score.value,
        published=published,
        allowed=allowed,
        verdict=verdict,
        note="; ".join(notes),
    )


def _half_width(score: Score, published: float, entry: Entry) -> float:
    """How far the score's 95 % interval reaches towards the published one; 0 where nothing is known of it."""
    low, high = score.low, score.high
    if low is None or high is None:
        queries = score.n or entry.test
        if not queries or not 0 <= score.value <= 1:
            return 0.0
        low, high = wilson(score.value, queries)
    return high - score.value if published > score.value else score.value - low


def failures(checks: Sequence[Check]) -> list[Check]:
    """Those that differ by more than is allowed."""
    return [check for check in checks if check.verdict == "differs"]


def summary(checks: Sequence[Check]) -> str:
    """One line: how many agree, and how many do not."""
    counts = {verdict: sum(check.verdict == verdict for check in checks) for verdict in _SAID}
    compared = sum(check.value is not None for check in checks)
    said = [f"{count} {_SAID[verdict]}" for verdict, count in counts.items() if count]
    return f"{compared} number{'' if compared == 1 else 's'} compared: {', '.join(said)}."


_SAID: dict[str, str] = {
    "agrees": "within the tolerance",
    "within error": "within the sampling error",
    "differs": "beyond what is allowed",
    "not comparable": "not comparable",
    "not published": "not published",
}


def table(checks: Sequence[Check]) -> list[str]:
    """The lines of a table for people, failures marked in front."""
    several = len({check.model for check in checks}) > 1
    head = ("", "data set", "metric", "here", "published", "difference", "allowed", "verdict")
    cells = [head]
    for check in checks:
        place = check.dataset if check.language == "en" else f"{check.dataset} ({check.language})"
        cells.append(
            (
                "!" if check.verdict == "differs" else "",
                f"{check.model} {place}" if several else place,
                check.metric,
                _number(check.value),
                _number(check.published),
                "-" if check.difference is None else f"{check.difference:+.4f}",
                _number(check.allowed),
                check.verdict + (f" ({check.note})" if check.note else ""),
            )
        )
    return aligned(cells, right=(3, 4, 5, 6))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
