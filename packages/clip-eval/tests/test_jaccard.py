"""Jaccard index of associations against scikit-learn and, with ties, every order of the tied."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from clip_core.errors import DataError
from clip_eval.metrics.jaccard import score_association

pytestmark = pytest.mark.parity


def indices(scores: list[float], right: list[bool]) -> list[float]:
    """scikit-learn's index for every order that the scores allow, as DataComp asks for it."""
    from sklearn.metrics import jaccard_score

    count, found = sum(right), []
    for order in itertools.permutations(range(len(scores))):
        taken = sorted(order, key=lambda place: scores[place])[-count:]
        found.append(jaccard_score(right, [place in taken for place in range(len(scores))]))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_without_ties_the_index_is_scikit_learns(seed: int) -> None:
    from sklearn.metrics import jaccard_score

    draw = np.random.RandomState(seed)
    size = (5, 6, 10, 12)[seed % 4]
    scores = draw.rand(size)
    right = np.isin(np.arange(size), draw.choice(size, size=draw.randint(1, size), replace=False))
    taken = np.isin(np.arange(size), np.argsort(scores)[-right.sum() :])
    found = score_association(scores.tolist(), right.tolist())
    assert found.expected == pytest.approx(jaccard_score(right, taken))
    assert (found.optimistic, found.pessimistic, found.tied) == (found.expected, found.expected, False)


@pytest.mark.parametrize("seed", range(12))
def test_ties_are_the_mean_over_all_orders(seed: int) -> None:
    draw = random.Random(seed)
    scores = [float(draw.randint(0, 2)) for _ in range(5)]
    right = [place in draw.sample(range(5), draw.randint(1, 3)) for place in range(5)]
    right[draw.randint(0, 4)] = True
    expected = indices(scores, right)
    found = score_association(scores, right)
    assert found.expected == pytest.approx(np.mean(expected))
    assert found.optimistic == pytest.approx(max(expected))
    assert found.pessimistic == pytest.approx(min(expected))
    assert found.tied == (max(expected) > min(expected))


def test_perfect_and_collapsed_models() -> None:
    assert score_association([3.0, 2.0, 1.0], [True, True, False]).expected == 1
    collapsed = score_association([0.5] * 6, [True, True, False, False, False, False])
    # Two of six by lot: 1/15 both, 8/15 one of them (index 1/3), 6/15 none.
    assert collapsed.expected == pytest.approx(1 / 15 + 8 / 45)
    assert (collapsed.optimistic, collapsed.pessimistic, collapsed.tied) == (1, 0, True)


def test_riddles_without_an_answer_are_refused() -> None:
    for right in ([False, False], []):
        with pytest.raises(DataError, match="no index can be computed"):
            score_association([0.1] * len(right), right)
    with pytest.raises(DataError, match="are NaN"):
        score_association([float("nan"), 1.0], [True, False])
