"""What the intervals of means over classes and of medians promise, by exact counts and by simulation."""

from __future__ import annotations

import math

import pytest
import torch

from clip_eval.metrics.intervals import Metric, median, stratified_mean


def median_of(values: torch.Tensor, clusters: torch.Tensor | None = None) -> Metric:
    return median(values, values, values, clusters)


@pytest.mark.parametrize("n", [*range(6, 60), 100, 101, 360, 999, 1000])
def test_median_interval_covers_by_exact_binomial_counts(n: int) -> None:
    found = median_of(torch.arange(1, n + 1))
    low, high = int(found.low), int(found.high)
    # The i-th and j-th smallest enclose the true median when i to j - 1 of n fall below it, each with chance 1/2.
    assert sum(math.comb(n, below) for below in range(low, high)) / 2**n >= 0.95
    # Nor is it wider than that by more than a place on each side.
    assert sum(math.comb(n, below) for below in range(low + 2, high - 2)) / 2**n < 0.95
    assert low + high == n + 1
    assert found.interval == "order statistics"


def test_median_of_a_hundred() -> None:
    found = median_of(torch.arange(1, 101))
    assert (found.low, found.value, found.high, found.n) == (40, 50.5, 61, 100)


@pytest.mark.parametrize("n", range(1, 6))
def test_too_few_queries_for_a_median_interval(n: int) -> None:
    found = median_of(torch.arange(1, n + 1))
    assert (found.low, found.high) == (1, n)
    assert "too few for 95 %" in found.interval


def test_many_captions_of_few_images_are_too_few() -> None:
    ranks = torch.arange(5).repeat_interleave(20)
    found = median_of(ranks, torch.arange(5).repeat_interleave(20))
    assert (found.low, found.high) == (0, 4)
    assert "too few for 95 %" in found.interval


def test_median_takes_bounds_from_the_ties() -> None:
    ones = torch.ones(9)
    found = median(2 * ones, ones, 3 * ones)
    assert (found.optimistic, found.value, found.pessimistic) == (1, 2, 3)
    assert (found.low, found.high) == (2, 2)


def test_repeated_captions_tell_the_median_no_more_than_one_of_them() -> None:
    ranks = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    single = median_of(ranks)
    repeated = median_of(ranks.repeat_interleave(5), torch.arange(400).repeat_interleave(5))
    assert (repeated.value, repeated.n) == (single.value, 2000)
    assert repeated.high - repeated.low == pytest.approx(single.high - single.low, rel=0.05)
    assert "clustered by image (effective N 399)" in repeated.interval
    # Captions whose ranks have nothing to do with their image's other ones count in full.
    mixed = ranks.repeat(5)
    loose = median_of(mixed, torch.arange(2000) % 500)
    assert loose.high - loose.low < 0.7 * (repeated.high - repeated.low)


def test_stratified_mean_is_the_mean_over_classes() -> None:
    values, counts = torch.tensor([1.0, 0.5, 0.0]), torch.tensor([4, 400, 1])
    found = stratified_mean(values, counts, values, torch.zeros(3))
    assert (found.value, found.n, found.optimistic, found.pessimistic) == (0.5, 405, 0.5, 0.0)
    # The class of one sample says next to nothing, and the interval shows it.
    even = stratified_mean(values, torch.tensor([135, 135, 135]), values, values)
    assert found.high - found.low > 3 * (even.high - even.low)


def test_classes_without_an_error_are_not_known_for_certain() -> None:
    values = torch.ones(10)
    few, many = (stratified_mean(values, torch.full((10,), n), values, values) for n in (5, 500))
    assert few.high == many.high == 1
    assert few.low < many.low < 1
    assert many.low > 0.998


def test_stratified_interval_covers_as_often_as_it_says() -> None:
    random = torch.Generator().manual_seed(0)
    shares = torch.tensor([0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.3, 0.99, 0.85], dtype=torch.float64)
    counts = torch.tensor([36, 20, 50, 36, 36, 36, 100, 36, 36, 15])
    inside = 0
    for _ in range(2000):
        values = torch.binomial(counts.double(), shares, generator=random) / counts
        found = stratified_mean(values, counts, values, values)
        inside += found.low <= float(shares.mean()) <= found.high
    assert 0.94 < inside / 2000 < 0.98
