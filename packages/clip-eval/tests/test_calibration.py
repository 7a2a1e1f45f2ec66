"""Expected calibration error against torchmetrics, and its interval by simulation."""

from __future__ import annotations

import pytest
import torch

from clip_eval.metrics import score_classification
from clip_eval.metrics.calibration import Calibration, Confidence, calibrate

pytestmark = pytest.mark.parity


def calibration_of(scores: torch.Tensor, labels: torch.Tensor, scale: float) -> Calibration:
    found = score_classification(scores, labels, logit_scale=scale, chunk=70)
    assert found.confidence is not None
    return calibrate(found.confidence)


@pytest.mark.parametrize("classes", [2, 7, 40])
@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_error_equals_torchmetrics(classes: int, scale: float) -> None:
    from torchmetrics.classification import MulticlassCalibrationError

    random = torch.Generator().manual_seed(classes)
    labels = torch.randint(classes, (600,), generator=random)
    scores = torch.randn(600, classes, generator=random)
    scores[torch.arange(600), labels] += 1
    found = calibration_of(scores, labels, scale)
    peer = MulticlassCalibrationError(classes, n_bins=15, norm="l1")
    probabilities = (scale * scores.double()).softmax(dim=1)
    assert probabilities.max() < 1
    assert found.error.value == pytest.approx(float(peer(probabilities, labels)), abs=1e-6)
    assert found.confidence == pytest.approx(float(probabilities.amax(1).mean()))
    assert sum(entry.n for entry in found.bins) == 600


def test_table_by_hand() -> None:
    stated = torch.tensor([0.95, 0.95, 1.0, 0.45], dtype=torch.float64)
    found = calibrate(Confidence(stated, torch.tensor([1.0, 0.0, 1.0, 1.0]).double()), bins=10)
    last, middle = found.bins[9], found.bins[4]
    assert (last.n, last.accuracy, middle.n, middle.accuracy) == (3, pytest.approx(2 / 3), 1, 1.0)
    assert last.confidence == pytest.approx(2.9 / 3)
    assert found.bins[0].accuracy is None
    assert found.error.value == pytest.approx(0.75 * (2.9 - 2) / 3 + 0.25 * 0.55)


def test_order_and_a_constant_do_not_matter_and_the_scale_does() -> None:
    random = torch.Generator().manual_seed(1)
    scores, labels = torch.randn(200, 6, generator=random), torch.randint(6, (200,), generator=random)
    first = calibration_of(scores, labels, 2.0).error
    order, classes = torch.randperm(200, generator=random), torch.randperm(6, generator=random)
    moved = calibration_of(scores[order][:, classes] + 3, classes.argsort()[labels[order]], 2.0).error
    assert moved.value == pytest.approx(first.value, abs=1e-6)
    assert abs(calibration_of(scores, labels, 20.0).error.value - first.value) > 0.1


def test_a_collapsed_model_states_chance_and_is_calibrated() -> None:
    found = calibration_of(torch.ones(50, 4), torch.arange(50) % 4, 100.0)
    assert found.confidence == pytest.approx(0.25)
    assert found.error.value == pytest.approx(0, abs=1e-12)
    assert found.error.low == 0 < found.error.high


@pytest.mark.parametrize("shift", [0.0, 0.15])
def test_interval_covers_the_error_of_endlessly_many_images(shift: float) -> None:
    random = torch.Generator().manual_seed(0)
    inside = 0
    for _ in range(300):
        stated = (0.3 + 0.7 * torch.rand(400, generator=random)).double()
        right = (torch.rand(400, generator=random) < stated - shift).double()
        error = calibrate(Confidence(stated, right)).error
        inside += error.low <= shift <= error.high
    assert inside / 300 > 0.93
