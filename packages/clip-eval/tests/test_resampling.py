"""The bootstrap against scipy's, and how often its intervals cover."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clip_eval.metrics.resampling import resample, resampled_mean

pytestmark = pytest.mark.parity


def test_interval_is_scipys_up_to_the_draw() -> None:
    from scipy.stats import bootstrap

    values = torch.from_numpy(np.random.RandomState(0).gamma(0.5, size=300))
    found = resampled_mean(values)
    peer = bootstrap((values.numpy(),), np.mean, n_resamples=5000, method="percentile", random_state=1)
    width = peer.confidence_interval.high - peer.confidence_interval.low
    assert found.value == pytest.approx(float(values.mean()))
    assert found.low == pytest.approx(peer.confidence_interval.low, abs=0.06 * width)
    assert found.high == pytest.approx(peer.confidence_interval.high, abs=0.06 * width)
    assert found.interval == "bootstrap, 2000 resamples"
    assert (found.optimistic, found.pessimistic, found.n) == (None, None, 300)


def test_the_draw_is_always_the_same_and_covers() -> None:
    random = np.random.RandomState(0)
    values = random.rand(50)
    assert resampled_mean(torch.from_numpy(values)) == resampled_mean(torch.from_numpy(values))
    inside = 0
    for _ in range(200):
        sample = torch.from_numpy(random.rand(60))
        low, high = resample(60, lambda counts, sample=sample: float(counts.double() @ sample) / 60, resamples=200)
        inside += low <= 0.5 <= high
    assert 0.88 < inside / 200 < 0.99


def test_equal_values_have_no_width() -> None:
    found = resampled_mean(torch.full((7,), 0.3), torch.ones(7), torch.zeros(7))
    assert found.low == pytest.approx(0.3)
    assert found.high == pytest.approx(0.3)
    assert found.low <= found.value <= found.high
    assert (found.optimistic, found.pessimistic) == (1, 0)
