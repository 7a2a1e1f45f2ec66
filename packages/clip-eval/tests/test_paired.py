"""Paired tests against scipy's, and what must hold of them whatever the data."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from clip_eval.metrics import wilson
from clip_eval.metrics.paired import compare_outcomes, compare_scores, exact_mcnemar, holm, resampled_differences


def draw(seed: int, count: int, chance: float) -> torch.Tensor:
    return (torch.rand(count, generator=torch.Generator().manual_seed(seed)) < chance).float()


@pytest.mark.parametrize(
    ("better", "worse"), [(0, 0), (1, 0), (0, 5), (3, 4), (7, 7), (20, 41), (130, 90), (4000, 4100), (49_000, 50_200)]
)
def test_mcnemar_equals_scipys_binomial_test(better: int, worse: int) -> None:
    expected = scipy.stats.binomtest(better, better + worse, 0.5).pvalue if better + worse else 1.0
    assert exact_mcnemar(better, worse) == pytest.approx(expected, rel=1e-9)
    assert exact_mcnemar(worse, better) == exact_mcnemar(better, worse)


def test_bootstrap_equals_scipys_on_plain_outcomes() -> None:
    first, second = draw(0, 500, 0.6), draw(1, 500, 0.66)
    ours = compare_outcomes(first, second, torch.arange(500), resamples=20_000)
    theirs = scipy.stats.bootstrap(
        (first.numpy(), second.numpy()),
        lambda a, b, axis: b.mean(axis) - a.mean(axis),
        paired=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(5),
    )
    assert ours.difference == pytest.approx(float((second - first).mean()))
    # Twice the standard error of a percentile of 20,000 draws is below 0.03 of their spread.
    spread = float(theirs.standard_error)
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.06 * spread)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.06 * spread)
    assert ours.test == "McNemar, exact"


@pytest.mark.parametrize("kinds", ["few", "many"])
def test_bootstrap_draws_images_with_all_their_captions(kinds: str) -> None:
    generator = torch.Generator().manual_seed(2)
    images = 2500
    counts = torch.randint(4, 7, (images,), generator=generator)
    clusters = torch.repeat_interleave(torch.arange(images), counts)
    shared = torch.rand(images, generator=generator)[clusters]
    first, second = (
        (shared < 0.5).float(),
        (shared + 0.2 * torch.rand(len(clusters), generator=generator) < 0.6).float(),
    )
    if kinds == "many":  # more kinds of images than are drawn by kind
        first, second = first * torch.rand(len(clusters), generator=generator), second * 0.9
    ours = compare_outcomes(first, second, clusters, resamples=10_000)
    sums = torch.zeros(images).index_add_(0, clusters, second - first).numpy()
    theirs = scipy.stats.bootstrap(
        (sums, counts.numpy()),
        lambda total, n, axis: total.sum(axis) / n.sum(axis),
        paired=True,
        method="percentile",
        n_resamples=10_000,
        rng=np.random.default_rng(6),
    )
    spread = float(theirs.standard_error)
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.1 * spread)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.1 * spread)
    assert ours.test == "paired bootstrap"
    assert ours.clusters == images
    alone = compare_outcomes(first, second, torch.arange(len(clusters)), resamples=2000)
    assert alone.high - alone.low != pytest.approx(ours.high - ours.low, rel=0.02)


def test_a_model_with_itself() -> None:
    outcomes = draw(3, 200, 0.5)
    for clusters, values in ((torch.arange(200), outcomes), (torch.arange(200) // 5, outcomes / 3)):
        same = compare_outcomes(values, values, clusters)
        assert (same.difference, same.low, same.high, same.p, same.better, same.worse) == (0, 0, 0, 1, 0, 0)


def test_the_order_of_models_and_of_queries_does_not_matter() -> None:
    first, second, clusters = draw(4, 300, 0.4), draw(5, 300, 0.5) * 0.8, torch.arange(300) // 3
    there = compare_outcomes(first, second, clusters)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(6))
    shuffled = compare_outcomes(first[order], second[order], clusters[order] + 7)
    assert (shuffled.better, shuffled.worse) == (there.better, there.worse)
    assert (shuffled.low, shuffled.high, shuffled.p) == pytest.approx((there.low, there.high, there.p))
    back = compare_outcomes(second, first, clusters, seed=1)
    assert back.difference == -there.difference
    assert (back.better, back.worse) == (there.worse, there.better)
    assert back.low == pytest.approx(-there.high, abs=0.15 * (there.high - there.low))


def test_draws_are_the_same_for_the_same_seed() -> None:
    sums, counts = torch.randn(50, dtype=torch.float64), torch.ones(50, dtype=torch.int64)
    one, two, other = (resampled_differences(sums, counts, resamples=100, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_under_no_difference_few_are_called_significant() -> None:
    """Of 300 pairs of equal models, the share with p < 0.05 stays within four standard errors of 0.05 or below."""
    for clusters in (torch.arange(400), torch.arange(400) // 4):
        ps = []
        for seed in range(300):
            first, second = draw(2 * seed, 400, 0.5), draw(2 * seed + 1, 400, 0.5)
            ps.append(compare_outcomes(first, second, clusters, resamples=400, seed=seed).p)
        assert sum(p < 0.05 for p in ps) / 300 <= 0.05 + 4 * (0.05 * 0.95 / 300) ** 0.5


def test_many_resamples_of_a_large_set_stay_small() -> None:
    import tracemalloc

    count = 200_000
    first, second = draw(7, count, 0.6), draw(8, count, 0.6)
    tracemalloc.start()
    compare_outcomes(first, second, torch.arange(count))
    compare_outcomes(first, torch.rand(count), torch.arange(count), resamples=30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6


@pytest.mark.parametrize(("a", "b", "n"), [(0.6, 0.63, 500), (0.6, 0.66, 1000), (0.95, 0.98, 300), (0.2, 0.1, 50)])
def test_scores_alone_against_statistics_of_two_samples(a: float, b: float, n: int) -> None:
    ours = compare_scores((a, *wilson(a, n)), (b, *wilson(b, n)))
    assert ours.difference == pytest.approx(b - a)
    assert ours.low < b - a < ours.high
    assert (ours.p < 0.05) == (not ours.low <= 0 <= ours.high)
    # Newcombe's paper gives for 56/70 against 48/80 the interval 0.0524 to 0.3339.
    paper = compare_scores((48 / 80, *wilson(48 / 80, 80)), (56 / 70, *wilson(56 / 70, 70)))
    assert paper.low == pytest.approx(0.0524, abs=5e-5)
    assert paper.high == pytest.approx(0.3339, abs=5e-5)
    p = scipy.stats.chi2_contingency([[a * n, (1 - a) * n], [b * n, (1 - b) * n]], correction=False).pvalue
    assert ours.p == pytest.approx(p, abs=0.06)


def test_scores_without_any_spread() -> None:
    assert compare_scores((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)).p == 1
    assert compare_scores((0.5, 0.5, 0.5), (0.6, 0.6, 0.6)).p == 0


def test_holm_equals_its_definition() -> None:
    ps = [0.01, 0.04, 0.03, 0.005, 0.04]
    adjusted = holm(ps)
    order = np.argsort(ps, kind="stable")
    expected = np.minimum(1, np.maximum.accumulate([(5 - rank) * ps[place] for rank, place in enumerate(order)]))
    assert [adjusted[place] for place in order] == pytest.approx(list(expected))
    assert adjusted[3] == pytest.approx(0.025)
    assert holm([]) == []
    assert holm([0.2]) == [0.2]
    assert all(p >= q for p, q in zip(adjusted, ps, strict=True))


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="one cluster for each query"):
        compare_outcomes(torch.ones(3), torch.ones(4), torch.arange(3))
