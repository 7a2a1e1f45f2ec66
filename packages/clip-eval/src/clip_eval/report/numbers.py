"""Numbers of a record as a page shows them: the name and the meaning in words, the interval, what ties leave open.

Everything that a record says is checked on the way in: it may come from a stranger. What is not here: chance levels,
which of a record's numbers stands for it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["INTERVALS", "Number", "Words", "amount", "percent", "read_number", "signed", "span", "words"]

Kind = Literal["share", "rank", "score"]


@dataclass(frozen=True, slots=True)
class Words:
    """What a metric is called and what it says."""

    label: str
    meaning: str = ""
    kind: Kind = "share"
    """A share of 1, shown in per cent; a rank, of which 1 is the best; or a score of its own scale."""


_WORDS = {
    "mean_per_class_recall": Words(
        "Mean per class recall", "Each class counts the same, however many pictures it has."
    ),
    "mean_average_precision": Words(
        "Mean average precision", "Mean over the labels of the area under precision/recall."
    ),
    "mean_recall@1": Words("Mean R@1 of both directions"),
    "image_retrieval_median_rank": Words(
        "Text to image, median rank", "Where the right picture stands; 1 is first.", "rank"
    ),
    "text_retrieval_median_rank": Words("Image to text, median rank", "Where the best own caption stands.", "rank"),
    "lp_mean_per_class_recall": Words("Linear probe, mean per class recall"),
    "lp_mean_average_precision": Words("Linear probe, mean average precision"),
    "image_acc": Words("Right picture for a caption"),
    "text_acc": Words("Right caption for a picture"),
    "acc": Words("Right caption", "Strictly more alike than every wrong one; a tie is not right."),
    "group_acc": Words("Both directions right"),
    "acc_wg": Words("Accuracy of the worst group"),
    "acc_avg": Words("Accuracy, all groups"),
    "acc_worst_region": Words("Accuracy of the worst region"),
    "acc_top5_wg": Words("Within the first 5, worst group"),
    "F1-macro_all": Words("Macro F1", "Mean over the classes of the harmonic mean of precision and recall."),
    "jaccard_score_10-12": Words("Jaccard, 10 and 12 candidates", "Overlap of the chosen and the right pictures."),
    "METEOR": Words("METEOR", kind="score"),
    "ROUGE_L": Words("ROUGE-L", kind="score"),
    "CIDEr": Words("CIDEr", "Agreement with the reference captions; good models exceed 1.", "score"),
    "SPICE": Words("SPICE", kind="score"),
    "ece": Words(
        "Expected calibration error", "Mean distance between what the model claims and how often it is right."
    ),
    "expected_calibration_error": Words("Expected calibration error", "Mean distance between claim and truth."),
}
_PATTERNS: tuple[tuple[str, str, str, Kind], ...] = (
    (r"acc(\d+)", "Accuracy within the first {0}", "", "share"),
    (r"lp_acc(\d+)", "Linear probe, within the first {0}", "", "share"),
    (r"mean_recall@(\d+)", "Mean R@{0} of both directions", "", "share"),
    (
        r"image_retrieval_recall@(\d+)",
        "Text to image, R@{0}",
        "Captions whose picture is among the first {0}.",
        "share",
    ),
    (
        r"text_retrieval_recall@(\d+)",
        "Image to text, R@{0}",
        "Pictures with an own caption among the first {0}.",
        "share",
    ),
    (r"jaccard_score_([\d-]+)", "Jaccard, {0} candidates", "Overlap of the chosen and the right pictures.", "share"),
    (r"Bleu_(\d)", "BLEU-{0}", "", "score"),
)
_FIRST = {
    "acc1": Words("Accuracy", "Pictures whose first answer is right."),
    "lp_acc1": Words("Linear probe, accuracy", "A linear classifier trained on the frozen features."),
}

INTERVALS = (
    ("Wilson", "Wilson's score interval"),
    ("normal, stratified", "a normal interval, class by class"),
    ("order statistics", "order statistics"),
    ("bootstrap", "a bootstrap over pictures"),
)
"""How the names of intervals in records begin, and what they are in a sentence."""


def words(name: str) -> Words:
    """The words for a metric; a name that is not known stands for itself."""
    if name in _FIRST:
        return _FIRST[name]
    if name in _WORDS:
        return _WORDS[name]
    for pattern, label, meaning, kind in _PATTERNS:
        found = re.fullmatch(pattern, name)
        if found:
            return Words(label.format(*found.groups()), meaning.format(*found.groups()), kind)
    return Words(name.replace("_", " "), kind="rank" if name.endswith("rank") else "share")


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """One number with everything that is needed to read it."""

    name: str
    words: Words
    value: float
    low: float
    high: float
    n: int
    interval: str
    optimistic: float | None
    pessimistic: float | None
    chance: float | None = None

    @property
    def is_share(self) -> bool:
        """Whether it lies between 0 and 1 and can be drawn on a track from 0 to 100 %."""
        return self.words.kind == "share" and 0 <= self.low <= self.value <= self.high <= 1

    @property
    def text(self) -> str:
        """The value."""
        return self.form(self.value)

    @property
    def span(self) -> str:
        """The interval."""
        return span(self.low, self.high) if self.is_share else f"{self.form(self.low)} – {self.form(self.high)}"

    @property
    def bounds(self) -> str | None:
        """What ties leave open, where they leave anything open."""
        if self.optimistic is None or self.pessimistic is None or self.optimistic == self.pessimistic:
            return None
        low, high = sorted((self.optimistic, self.pessimistic))
        return f"{self.form(low)} to {self.form(high)}, depending on how ties fall"

    @property
    def normalised(self) -> float | None:
        """0 at chance, 1 at perfect; below 0 for a model that is worse than drawing lots."""
        if self.chance is None or not self.is_share or self.chance >= 1:
            return None
        return (self.value - self.chance) / (1 - self.chance)

    def form(self, value: float) -> str:
        """A value in the unit of this number."""
        if self.is_share:
            return percent(value)
        return f"{value:,.3f}" if self.words.kind != "rank" else amount(value)


def read_number(name: str, data: Mapping[str, Any], chance: float | None = None) -> Number:
    """A metric of a record; `ValueError` or `TypeError` where it is damaged."""
    value, low, high = (_finite(data[key]) for key in ("value", "low", "high"))
    bounds = [None if data.get(key) is None else _finite(data[key]) for key in ("optimistic", "pessimistic")]
    return Number(
        name=name,
        words=words(name),
        value=value,
        low=low,
        high=high,
        n=int(data["n"]),
        interval=str(data.get("interval", "")),
        optimistic=bounds[0],
        pessimistic=bounds[1],
        chance=chance,
    )


def _finite(value: Any) -> float:
    number = float(value)
    if isinstance(value, str) or not math.isfinite(number):
        raise ValueError(f"{value!r} is not a finite number")
    return number


def percent(value: float | None) -> str:
    """Of a share."""
    return "–" if value is None else f"{100 * value:.1f} %"


def span(low: float, high: float) -> str:
    """An interval of shares."""
    return f"{100 * low:.1f} – {percent(high)}"


def signed(difference: float) -> str:
    """A difference of shares in points, with its sign."""
    points = round(100 * difference, 1)
    return "0.0" if points == 0 else f"{points:+.1f}".replace("-", "\N{MINUS SIGN}")


def amount(value: float) -> str:
    """A count or a rank, with one decimal where it has one."""
    return f"{value:,.1f}".removesuffix(".0")
