"""Whether the right one of a few captions, or images, scores strictly above the others (Winoground, SugarCrepe).

A tie is a miss: neither paper counts one as right, and a collapsed model, which ties everywhere, would be perfect.
`optimistic` counts ties as right; `pessimistic` is the value itself. Shapes: P pairs of an image and a caption, Q
questions, E examples. What is not here: similarities.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clip_core.errors import DataError
from clip_eval.metrics.intervals import Metric, proportion

__all__ = ["Answers", "Questions", "answer", "score_choice"]


@dataclass(frozen=True, slots=True)
class Questions:
    """Q questions of one kind, such as which caption fits an image, in P pairs of a question and a possible answer."""

    scores: Tensor
    """float64 (P,): similarities."""
    questions: Tensor
    """int64 (P,): the question that a pair belongs to, in [0, Q)."""
    right: Tensor
    """bool (P,): every question has at least one right answer, and the best of them counts."""
    examples: Tensor
    """int64 (Q,): the example that a question belongs to."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What became of Q questions, or of E examples."""

    strict: Tensor
    """bool: a right answer stands above all wrong ones; for an example, in all of its questions."""
    loose: Tensor
    """bool: above them or beside the best of them."""


def answer(asked: Questions) -> Answers:
    """Q answers; raises `DataError` for a score that is NaN."""
    if bool(asked.scores.isnan().any()):
        raise DataError("Some similarities are NaN, which no caption can win against. Check the features.")
    right, wrong = (
        torch.full((len(asked.examples),), -torch.inf, dtype=asked.scores.dtype).scatter_reduce(
            0, asked.questions[chosen], asked.scores[chosen], "amax"
        )
        for chosen in (asked.right, ~asked.right)
    )
    return Answers(right > wrong, right >= wrong)


def score_choice(
    texts: Questions, images: Questions | None, clusters: Tensor
) -> tuple[dict[str, Metric], dict[str, Answers], dict[str, float]]:
    """Metrics, the examples' answers by metric, and the share of questions that tie.

    `text_acc` is the share of examples in which every image finds its caption, `image_acc` in which every caption
    finds its image, `acc` both; Winoground calls them text, image and group score.

    Args:
        texts: for each image: which caption. Its examples are 0 to E - 1, all of them.
        images: for each caption: which image; of the same examples. None where an example has one image.
        clusters: int64 (E,): equal for examples about the same image; they are one unit of the interval.
    """
    count = len(clusters)
    found = {"text_acc": answer(texts)}
    ties = {"text_acc": _tied(found["text_acc"])}
    per_example = {"text_acc": _all_of(found["text_acc"], texts.examples, count)}
    if images is not None:
        found["image_acc"] = answer(images)
        ties["image_acc"] = _tied(found["image_acc"])
        per_example["image_acc"] = _all_of(found["image_acc"], images.examples, count)
    both = list(per_example.values())
    per_example["acc"] = Answers(
        torch.stack([part.strict for part in both]).all(dim=0), torch.stack([part.loose for part in both]).all(dim=0)
    )
    metrics = {name: proportion(part.strict, part.loose, part.strict, clusters) for name, part in per_example.items()}
    return metrics, per_example, ties


def _tied(part: Answers) -> float:
    return float((part.loose & ~part.strict).double().mean())


def _all_of(part: Answers, examples: Tensor, count: int) -> Answers:
    def every(values: Tensor) -> Tensor:
        return torch.ones(count, dtype=torch.int64).scatter_reduce(0, examples, values.long(), "amin").bool()

    return Answers(every(part.strict), every(part.loose))
