"""What must hold of classification metrics whatever the scores: order, scale, classes, collapse, duplicates."""

from __future__ import annotations

import pytest
import torch

from clip_core.errors import DataError
from clip_eval.metrics.classification import ClassificationScores, classify, macro_f1, score_classification


def draw(n: int = 120, classes: int = 7, *, ties: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(n)
    labels = torch.randint(classes, (n,), generator=random)
    scores = torch.randn(n, classes, generator=random)
    scores[torch.arange(n), labels] += 1
    return ((2 * scores).round() if ties else scores), labels


def numbers(scores: ClassificationScores, labels: torch.Tensor) -> dict[str, list[float]]:
    found = {**scores.metrics, "f1": macro_f1(scores, labels)}
    return {
        name: [metric.value, metric.optimistic or 0, metric.pessimistic or 0, metric.low, metric.high]
        for name, metric in found.items()
    }


def same(first: dict[str, list[float]], second: dict[str, list[float]]) -> bool:
    return first.keys() == second.keys() and all(first[name] == pytest.approx(second[name]) for name in first)


@pytest.mark.parametrize("ties", [False, True])
def test_order_of_images_and_classes_scale_and_chunks_do_not_matter(ties: bool) -> None:
    scores, labels = draw(ties=ties)
    first = numbers(score_classification(scores, labels), labels)
    random = torch.Generator().manual_seed(0)
    order, classes = torch.randperm(len(labels), generator=random), torch.randperm(7, generator=random)
    assert same(first, numbers(score_classification(scores[order], labels[order]), labels[order]))
    assert same(first, numbers(score_classification(4 * scores + 2, labels, chunk=11), labels))
    moved = numbers(score_classification(scores[:, classes], classes.argsort()[labels]), classes.argsort()[labels])
    if ties:  # the intervals of F1 go by the predictions, of which a tie makes the first
        first, moved = ({name: values[:3] for name, values in found.items()} for found in (first, moved))
    assert same(first, moved)


def test_more_answers_hit_more_and_all_of_them_always() -> None:
    scores, labels = draw(classes=5, ties=True)
    found = score_classification(scores, labels).metrics
    assert found["acc5"].value == found["acc5"].pessimistic == 1
    assert found["acc1"].value < 1
    many = score_classification(*draw(ties=True)).metrics
    assert many["acc1"].value <= many["acc5"].value
    assert many["acc1"].pessimistic <= many["acc1"].value <= many["acc1"].optimistic


def test_a_second_class_of_the_same_name_costs_half_and_luck_brings_it_back() -> None:
    features = torch.nn.functional.normalize(torch.randn(80, 16, generator=torch.Generator().manual_seed(1)), dim=1)
    weights = features[:6].T
    labels = torch.arange(80) % 6
    once, twice = classify(features, weights, labels), classify(features, weights.repeat(1, 2), labels)
    assert twice.metrics["acc1"].optimistic == once.metrics["acc1"].value
    assert twice.metrics["acc1"].value == pytest.approx(once.metrics["acc1"].value / 2)
    assert twice.metrics["acc1"].pessimistic == 0


def test_a_duplicated_data_set_keeps_the_metrics_and_halves_the_variance() -> None:
    scores, labels = draw(n=400)
    once = numbers(score_classification(scores, labels), labels)
    twice = numbers(score_classification(scores.repeat(2, 1), labels.repeat(2)), labels.repeat(2))
    for name, values in once.items():
        assert twice[name][0] == pytest.approx(values[0])
        width, narrower = values[4] - values[3], twice[name][4] - twice[name][3]
        assert width / narrower == pytest.approx(2**0.5, rel=0.06)


def test_random_scores_are_at_chance() -> None:
    random = torch.Generator().manual_seed(2)
    scores, labels = torch.randn(4000, 8, generator=random), torch.randint(8, (4000,), generator=random)
    found = score_classification(scores, labels).metrics
    for name, chance in (("acc1", 1 / 8), ("acc5", 5 / 8), ("mean_per_class_recall", 1 / 8)):
        assert found[name].low < chance < found[name].high
        assert found[name].high - found[name].low < 0.04


def test_a_score_that_is_no_number_is_an_error() -> None:
    scores, labels = draw()
    scores[50, 3] = torch.nan
    with pytest.raises(DataError, match="NaN"):
        score_classification(scores, labels, chunk=30)
