"""Scores by group: against scikit-learn, by hand, and what the intervals promise."""

from __future__ import annotations

import itertools

import pytest
import torch

from clip_core.errors import DataError
from clip_eval.metrics import score_classification
from clip_eval.metrics.classification import macro_f1
from clip_eval.metrics.groups import group_numbers, score_groups, worst_group
from clip_eval.metrics.ranking import Hits

pytestmark = pytest.mark.parity


def draw(n: int, classes: int, seed: int, gain: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores, labels (the last class has none), groups."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes - 1, (n,), generator=random)
    scores = torch.randn(n, classes, generator=random)
    scores[torch.arange(n), labels] += gain
    return scores, labels, torch.randint(5, (n,), generator=random)


def certain(hits: torch.Tensor) -> Hits:
    return Hits(hits, hits, hits)


@pytest.mark.parametrize("classes", [3, 6, 30])
def test_macro_f1_equals_scikit_learn(classes: int) -> None:
    from sklearn.metrics import f1_score

    scores, labels, _ = draw(500, classes, seed=classes)
    found = macro_f1(score_classification(scores, labels, chunk=77), labels)
    # WILDS counts the classes that occur; what is predicted of others is a miss only.
    expected = f1_score(labels, scores.argmax(1), average="macro", labels=labels.unique(), zero_division=0)
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert found.optimistic == found.pessimistic == pytest.approx(expected, abs=1e-12)


def test_macro_f1_with_ties_stays_between_all_ways_to_break_them() -> None:
    from sklearn.metrics import f1_score

    random = torch.Generator().manual_seed(3)
    scores = torch.randint(2, (7, 3), generator=random).float()
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    best = [(row == row.max()).nonzero().flatten().tolist() for row in scores]
    ways = [
        f1_score(labels, guesses, average="macro", labels=[0, 1, 2], zero_division=0)
        for guesses in itertools.product(*best)
    ]
    assert len(ways) > 10
    found = macro_f1(score_classification(scores, labels), labels)
    assert found.pessimistic <= min(ways) < max(ways) <= found.optimistic
    assert found.value == pytest.approx(sum(ways) / len(ways), abs=0.05)


def test_macro_f1_interval_covers() -> None:
    random = torch.Generator().manual_seed(0)
    shares, recall = torch.tensor([0.5, 0.3, 0.15, 0.05]), torch.tensor([0.9, 0.6, 0.8, 0.3])

    def sample(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.multinomial(shares, n, replacement=True, generator=random)
        wrong = (labels + torch.randint(1, 4, (n,), generator=random)) % 4
        guesses = torch.where(torch.rand(n, generator=random) < recall[labels], labels, wrong)
        return torch.nn.functional.one_hot(guesses, 4).float(), labels

    scores, labels = sample(400_000)
    truth = macro_f1(score_classification(scores, labels), labels).value
    inside = 0
    for _ in range(400):
        scores, labels = sample(300)
        found = macro_f1(score_classification(scores, labels), labels)
        inside += found.low <= truth <= found.high
    assert 0.93 < inside / 400 <= 0.99


def test_perfect_and_duplicated() -> None:
    labels = torch.arange(40) % 4
    perfect = macro_f1(score_classification(torch.eye(4)[labels], labels), labels)
    assert perfect.value == perfect.high == 1
    assert 0.8 < perfect.low < 1
    scores, labels, _ = draw(300, 5, seed=1)
    once = macro_f1(score_classification(scores, labels), labels)
    twice = macro_f1(score_classification(scores.repeat(2, 1), labels.repeat(2)), labels.repeat(2))
    assert twice.value == pytest.approx(once.value)
    assert (once.high - once.low) / (twice.high - twice.low) == pytest.approx(2**0.5, rel=0.05)


def test_group_means_equal_accuracy_on_each_group() -> None:
    from sklearn.metrics import accuracy_score

    scores, labels, groups = draw(400, 6, seed=2)
    hits = score_classification(scores, labels).hits[1]
    found = score_groups(hits, groups)
    for entry in found:
        mine = groups == entry.group
        assert entry.score.value == pytest.approx(accuracy_score(labels[mine], scores[mine].argmax(1)))
        assert entry.score.n == int(mine.sum())
    worst, group = worst_group(found)
    assert worst.value == min(entry.score.value for entry in found)
    assert group == min(found, key=lambda entry: entry.score.value).group
    spared, other = worst_group(found, left_out={group})
    assert other != group
    assert spared.n == worst.n - int((groups == group).sum())
    assert worst.low <= worst.value <= worst.high
    with pytest.raises(DataError, match="none is left"):
        worst_group(found, left_out=range(5))


def test_worst_group_of_ties() -> None:
    found = score_groups(
        score_classification(torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 1])).hits[1],
        torch.tensor([0, 1, 1]),
    )
    worst, group = worst_group(found)
    assert (worst.pessimistic, worst.value, worst.optimistic, group) == (0.0, 0.5, 1.0, 0)


def test_interval_of_the_worst_group_covers_the_worst_true_mean() -> None:
    random = torch.Generator().manual_seed(0)
    groups = torch.arange(8).repeat_interleave(60)
    for means in (torch.full((8,), 0.7), torch.linspace(0.5, 0.9, 8)):
        inside = below = 0
        for _ in range(500):
            hits = (torch.rand(480, generator=random) < means[groups]).double()
            worst, _ = worst_group(score_groups(certain(hits), groups))
            inside += worst.low <= float(means.min()) <= worst.high
            below += worst.value < float(means.min())
        assert inside / 500 > 0.95
        assert below > 250  # why the measured minimum alone is too low


def test_numbers_of_combined_groups() -> None:
    numbers, values = group_numbers(torch.tensor([[1, 0], [0, 1], [1, 0], [0, 0]]))
    assert values.tolist() == [[0, 0], [1, 0], [0, 1]]
    assert values[numbers].tolist() == [[1, 0], [0, 1], [1, 0], [0, 0]]
    with pytest.raises(ValueError, match="groups for 3"):
        score_groups(certain(torch.ones(2).double()), torch.zeros(3).long())
