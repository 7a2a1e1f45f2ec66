"""The metrics against scikit-learn, torchmetrics and, where there are ties, brute force; and their invariances."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from clip_core.errors import DataError
from clip_eval.metrics import classify, score_classification, score_retrieval, wilson
from clip_eval.metrics.ranking import Ranks, rank_rows, similarities

pytestmark = pytest.mark.parity


def unit(*shape: int, seed: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parity
@pytest.mark.parametrize("classes", [2, 5, 17])
def test_classification_equals_scikit_learn(classes: int) -> None:
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, recall_score
    from sklearn.metrics import top_k_accuracy_score as top_k

    scores = torch.randn(400, classes, generator=torch.Generator().manual_seed(classes))
    labels = torch.randint(classes, (400,), generator=torch.Generator().manual_seed(1))
    scores[torch.arange(400), labels] += 0.7
    found = score_classification(scores, labels)
    guesses = scores.argmax(1).numpy()
    assert found.metrics["acc1"].value == pytest.approx(accuracy_score(labels, guesses), abs=1e-12)
    assert found.metrics["mean_per_class_recall"].value == pytest.approx(balanced_accuracy_score(labels, guesses))
    assert np.array_equal(found.confusion.numpy(), confusion_matrix(labels, guesses, labels=range(classes)))
    recalls = recall_score(labels, guesses, average=None, labels=range(classes))
    assert [entry.recall for entry in found.per_class] == pytest.approx(list(recalls))
    assert ("acc5" in found.metrics) == (classes >= 5)
    if classes > 5:
        expected = top_k(labels, scores.numpy(), k=5, labels=range(classes))
        assert found.metrics["acc5"].value == pytest.approx(expected)
    assert found.tie_share == 0


@pytest.mark.parity
@pytest.mark.parametrize("chunk", [3, 1000])
def test_retrieval_equals_torchmetrics(chunk: int) -> None:
    from torchmetrics.retrieval import RetrievalHitRate

    images = unit(40, 16, seed=0)
    owners = torch.cat([torch.arange(40), torch.randint(40, (90,), generator=torch.Generator().manual_seed(5))])
    owners = owners[torch.randperm(130, generator=torch.Generator().manual_seed(6))]
    texts = torch.nn.functional.normalize(images[owners] + 1.6 * unit(130, 16, seed=2), dim=-1)
    found = score_retrieval(images, texts, owners, chunk=chunk).metrics
    scores = texts @ images.T
    target = owners[:, None] == torch.arange(40)
    for k in (1, 5, 10):
        peer = RetrievalHitRate(top_k=k)
        rows = torch.arange(130)[:, None].expand(-1, 40)
        expected = peer(scores.flatten(), target.flatten(), indexes=rows.flatten())
        assert found[f"image_retrieval_recall@{k}"].value == pytest.approx(float(expected), abs=1e-6)
        rows = torch.arange(40)[:, None].expand(-1, 130)
        expected = RetrievalHitRate(top_k=k)(scores.T.flatten(), target.T.flatten(), indexes=rows.flatten())
        assert found[f"text_retrieval_recall@{k}"].value == pytest.approx(float(expected), abs=1e-6)
    assert 0.2 < found["image_retrieval_recall@1"].value < 0.9  # neither trivial


def brute_hits(scores: list[int], right: set[int], k: int) -> list[bool]:
    """Whether a right answer is among the first k, for every order of the gallery that the scores allow."""
    outcomes = []
    for order in itertools.permutations(range(len(scores))):
        ranked = sorted(order, key=lambda place: -scores[place])
        outcomes.append(bool(right & set(ranked[:k])))
    return outcomes


@pytest.mark.parametrize("seed", range(6))
def test_ties_equal_all_orders_of_the_tied(seed: int) -> None:
    random = np.random.RandomState(seed)
    scores = random.randint(3, size=(1, 6))
    right = set(random.choice(6, size=random.randint(1, 4), replace=False).tolist())
    columns = torch.tensor(sorted(right))
    ranks = rank_rows(torch.tensor(scores).float(), torch.zeros(len(right), dtype=torch.int64), columns)
    for k in range(1, 7):
        outcomes = brute_hits(scores[0].tolist(), right, k)
        hits = ranks.hits(k)
        assert float(hits.expected) == pytest.approx(np.mean(outcomes))
        assert bool(hits.optimistic) == any(outcomes)
        assert bool(hits.pessimistic) == all(outcomes)


def test_expected_rank_is_the_mean_over_orders() -> None:
    ranks = Ranks(torch.tensor([2]), torch.tensor([2]), torch.tensor([2]))
    firsts = [min(order.index(0), order.index(1)) for order in itertools.permutations(range(4))]
    positions = ranks.positions()
    assert float(positions.expected) == pytest.approx(3 + np.mean(firsts))
    assert (float(positions.optimistic), float(positions.pessimistic)) == (3, 5)


def test_collapsed_model_scores_chance_and_says_that_all_is_tied() -> None:
    same = unit(1, 8, seed=0).expand(50, -1)
    labels = torch.arange(50) % 10
    found = classify(same, same[:10].T, labels)
    acc1 = found.metrics["acc1"]
    assert (acc1.value, acc1.optimistic, acc1.pessimistic) == (pytest.approx(0.1), 1.0, 0.0)
    assert found.metrics["acc5"].value == pytest.approx(0.5)
    assert found.tie_share == 1.0
    pairs = score_retrieval(same, same, torch.arange(50))
    assert pairs.metrics["image_retrieval_recall@1"].value == pytest.approx(1 / 50)
    assert pairs.metrics["text_retrieval_recall@10"].pessimistic == 0
    assert pairs.metrics["text_retrieval_median_rank"].value == pytest.approx(25.5)
    assert pairs.image_retrieval_ties == 1.0


def test_equal_features_tie_wherever_they_stand() -> None:
    # With float32 products the same row gives another last bit in another place of the block, on some machines.
    weights = unit(1, 512, seed=1).expand(37, -1)
    scores = similarities(unit(65, 512, seed=2), weights)
    assert torch.equal(scores.amax(1), scores.amin(1))


def test_perfect_model() -> None:
    features = torch.eye(7)
    labels = torch.arange(7)
    metrics = classify(features, features, labels).metrics
    assert metrics["acc1"].value == metrics["mean_per_class_recall"].value == 1
    assert metrics["acc1"].high == 1
    assert metrics["acc1"].low < 1
    pairs = score_retrieval(features, features, labels).metrics
    assert pairs["image_retrieval_recall@1"].value == 1
    assert pairs["image_retrieval_median_rank"].value == 1


def test_order_and_chunks_do_not_matter() -> None:
    images, owners = unit(30, 8, seed=3), torch.arange(60) // 2
    texts = torch.nn.functional.normalize(images[owners] + unit(60, 8, seed=4), dim=-1)
    expected = {name: metric.value for name, metric in score_retrieval(images, texts, owners).metrics.items()}
    shuffle, mix = torch.randperm(30), torch.randperm(60)
    place = shuffle.argsort()
    found = score_retrieval(images[shuffle], texts[mix], place[owners[mix]], chunk=7).metrics
    assert {name: metric.value for name, metric in found.items()} == pytest.approx(expected)
    labels = torch.arange(30) % 5
    weights = unit(5, 8, seed=9).T
    first, second = classify(images, weights, labels), classify(images[shuffle], weights, labels[shuffle], chunk=4)
    assert {k: v.to_json() for k, v in first.metrics.items()} == {
        k: pytest.approx(v.to_json()) for k, v in second.metrics.items()
    }
    assert torch.equal(first.confusion, second.confusion)


def test_an_unseen_class_has_no_recall() -> None:
    found = score_classification(torch.eye(3)[:2], torch.tensor([0, 1]))
    assert found.per_class[2].recall is None
    assert found.per_class[2].n == 0
    assert found.metrics["mean_per_class_recall"].value == 1


def test_retrieval_refuses_an_image_without_caption() -> None:
    with pytest.raises(ValueError, match="every image needs a caption"):
        score_retrieval(torch.eye(3), torch.eye(3), torch.tensor([0, 1, 1]))


def test_scores_that_are_not_numbers_are_refused() -> None:
    features, labels = torch.eye(5), torch.arange(5)
    # One NaN anywhere is enough: in a right answer as in a wrong one.
    for row, column in ((0, 0), (3, 1)):
        scores = features.clone()
        scores[row, column] = torch.nan
        with pytest.raises(DataError, match="1 of 5 queries have a score that is NaN"):
            score_classification(scores, labels)
    broken = features.clone()
    broken[2] = torch.nan
    for call in (
        lambda: classify(broken, features, labels),
        lambda: classify(features, broken.T, labels, chunk=2),
        lambda: score_retrieval(broken, features, labels),
        lambda: score_retrieval(features, broken, labels),
    ):
        with pytest.raises(DataError, match="is NaN"):
            call()


def test_wilson_equals_scipy() -> None:
    from scipy.stats import binomtest

    for hits, n in ((0, 10), (7, 10), (10, 10), (342, 360), (1, 200)):
        expected = binomtest(hits, n).proportion_ci(method="wilson")
        assert wilson(hits / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_captions_of_one_image_count_as_less_than_independent() -> None:
    images = unit(20, 4, seed=0)
    owners = torch.arange(100) // 5
    # All five captions of an image are the same: the 100 queries hold the evidence of 20.
    texts = torch.nn.functional.normalize(images + 0.8 * unit(20, 4, seed=1), dim=-1)[owners]
    metric = score_retrieval(images, texts, owners).metrics["image_retrieval_recall@1"]
    single = score_retrieval(images, texts[::5], torch.arange(20)).metrics["image_retrieval_recall@1"]
    assert metric.value == pytest.approx(single.value)
    assert 0 < metric.value < 1
    assert metric.high - metric.low == pytest.approx(single.high - single.low, rel=0.1)
    assert single.interval == "Wilson"
    assert "clustered" in metric.interval


def test_interval_covers_as_often_as_it_says() -> None:
    random = np.random.RandomState(0)
    for share, n in ((0.5, 200), (0.95, 360), (0.1, 50)):
        inside = [low <= share <= high for low, high in (wilson(x / n, n) for x in random.binomial(n, share, 4000))]
        assert 0.93 < np.mean(inside) < 0.97
