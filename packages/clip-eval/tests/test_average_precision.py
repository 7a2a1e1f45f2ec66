"""Mean average precision against scikit-learn, torchmetrics and all orders of ties; its interval by simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from clip_core.errors import DataError
from clip_eval.metrics.average_precision import score_multilabel

pytestmark = pytest.mark.parity


def draw(n: int, classes: int, seed: int, gain: float = 0.8) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    present = torch.rand(n, classes, generator=random) < torch.linspace(0.05, 0.5, classes)
    return torch.randn(n, classes, generator=random) + gain * present, present


@pytest.mark.parametrize("n", [30, 500])
def test_equals_scikit_learn_and_torchmetrics(n: int) -> None:
    from sklearn.metrics import average_precision_score
    from torchmetrics.classification import MultilabelAveragePrecision

    scores, present = draw(n, 8, seed=n)
    assert present.any(dim=0).all()
    found = score_multilabel(scores, present)
    expected = average_precision_score(present.numpy(), scores.numpy(), average=None)
    assert [entry.average_precision for entry in found.per_class] == pytest.approx(list(expected), abs=1e-12)
    assert found.mean.value == pytest.approx(float(np.mean(expected)), abs=1e-12)
    assert found.mean.optimistic == found.mean.pessimistic == pytest.approx(found.mean.value)
    assert found.tie_share == 0
    peer = MultilabelAveragePrecision(8)(scores.sigmoid(), present.long())
    assert found.mean.value == pytest.approx(float(peer), abs=1e-6)


def test_a_class_without_positives_counts_as_zero_and_is_named() -> None:
    from sklearn.metrics import average_precision_score

    scores, present = draw(50, 4, seed=1)
    present[:, 2] = False
    found = score_multilabel(scores, present)
    with pytest.warns(UserWarning, match="No positive class found"):
        expected = average_precision_score(present.numpy(), scores.numpy())
    assert found.mean.value == pytest.approx(expected)
    assert found.per_class[2].average_precision is None
    assert found.per_class[2].positives == 0


def precision_of(order: list[bool]) -> float:
    hits = np.cumsum(order)
    return float(np.mean([hits[place] / (place + 1) for place in range(len(order)) if order[place]]))


@pytest.mark.parametrize("seed", range(8))
def test_ties_equal_all_orders_of_the_tied(seed: int) -> None:
    random = np.random.RandomState(seed)
    scores, present = random.randint(3, size=7), random.rand(7) < 0.5
    present[random.randint(7)] = True
    ways = []
    for order in itertools.permutations(range(7)):
        ranked = sorted(order, key=lambda place: -scores[place])
        ways.append(precision_of([bool(present[place]) for place in ranked]))
    found = score_multilabel(torch.tensor(scores)[:, None].float(), torch.tensor(present)[:, None]).mean
    assert found.value == pytest.approx(np.mean(ways))
    assert found.optimistic == pytest.approx(max(ways))
    assert found.pessimistic == pytest.approx(min(ways))


def test_order_of_images_and_classes_and_monotone_changes_do_not_matter() -> None:
    scores, present = draw(60, 5, seed=2)
    scores = (4 * scores).round()  # ties
    first = score_multilabel(scores, present)
    random = torch.Generator().manual_seed(0)
    order, classes = torch.randperm(60, generator=random), torch.randperm(5, generator=random)
    second = score_multilabel(3 * scores[order][:, classes] - 7, present[order][:, classes])
    assert second.mean.to_json() == {
        key: pytest.approx(value) if isinstance(value, float) else value for key, value in first.mean.to_json().items()
    }
    assert torch.allclose(second.shares, first.shares[order])
    assert first.tie_share > 0.3


def test_perfect_collapsed_and_broken() -> None:
    _, present = draw(200, 4, seed=3)
    perfect = score_multilabel(present.float(), present).mean
    assert perfect.value == perfect.high == perfect.pessimistic == 1
    assert 0.95 < perfect.low < 1
    collapsed = score_multilabel(torch.zeros(200, 4), present)
    share = float(present.double().mean())
    assert collapsed.mean.value == pytest.approx(share, abs=0.03)
    assert collapsed.mean.optimistic == 1
    assert collapsed.tie_share == 1
    scores = torch.zeros(200, 4)
    scores[7, 1] = torch.nan
    with pytest.raises(DataError, match="1 of 200 images have a score that is NaN"):
        score_multilabel(scores, present)
    with pytest.raises(ValueError, match="must be equal"):
        score_multilabel(scores, present[:3])


def test_a_duplicated_data_set_halves_the_variance() -> None:
    scores, present = draw(300, 5, seed=4)
    once = score_multilabel(scores, present)
    # Twins tie with each other; positives with positives only, so nothing but the places between them moves.
    twice = score_multilabel(scores.repeat(2, 1), present.repeat(2, 1))
    assert twice.mean.value == pytest.approx(once.mean.value, abs=0.01)
    widths = [found.mean.high - found.mean.low for found in (once, twice)]
    assert widths[0] / widths[1] == pytest.approx(2**0.5, rel=0.05)


def test_shares_are_the_pull_of_each_image() -> None:
    """An image counted k times in place of once moves the mean by what its share says, to first order."""
    from sklearn.metrics import average_precision_score

    scores, present = draw(80, 3, seed=5)
    found = score_multilabel(scores, present)
    assert float(found.shares.mean()) == pytest.approx(found.mean.value)
    for image in (0, 11, 42):
        step, weights = 1e-6, np.ones(80)
        weights[image] += step
        moved = average_precision_score(present.numpy(), scores.numpy(), sample_weight=weights)
        pull = (moved - found.mean.value) / step
        assert float(found.shares[image]) == pytest.approx(found.mean.value + 80 * pull, abs=1e-4)


def test_interval_equals_the_bootstrap_and_covers() -> None:
    scores, present = draw(400, 6, seed=6)
    found = score_multilabel(scores, present)
    random = torch.Generator().manual_seed(0)
    means = []
    for _ in range(300):
        rows = torch.randint(400, (400,), generator=random)
        means.append(score_multilabel(scores[rows], present[rows]).mean.value)
    spread = float(np.std(means))
    assert float(found.shares.std()) / 400**0.5 == pytest.approx(spread, rel=0.1)
    # A little wider, for what the rarest classes do not show.
    assert 1 < (found.mean.high - found.mean.low) / (2 * 1.96 * spread) < 1.3
    truth = score_multilabel(*draw(40_000, 6, seed=7)).mean.value
    inside = 0
    for seed in range(200):
        again = score_multilabel(*draw(250, 6, seed=1000 + seed)).mean
        inside += again.low <= truth <= again.high
    assert 0.9 < inside / 200 <= 1
