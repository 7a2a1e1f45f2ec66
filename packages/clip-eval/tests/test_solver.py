"""The probe's solver against scikit-learn, at and beyond the precision that it reaches."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from clip_core.errors import ConfigError, DataError
from clip_eval.probe.solver import Probe, ProbeProblem

pytestmark = pytest.mark.parity


def draw(n: int, width: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centres = torch.randn(classes, width, generator=random)
    features = torch.nn.functional.normalize(centres[labels] + 2 * torch.randn(n, width, generator=random), dim=1)
    return features, labels


def gradient(probe: Probe, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    weight, bias = probe.weight.clone().requires_grad_(), probe.bias.clone().requires_grad_()
    logits = features.double() @ weight.T + bias
    loss = torch.nn.functional.cross_entropy(logits, labels) + probe.decay / 2 * (weight**2).sum()
    loss.backward()
    return torch.cat([weight.grad.flatten(), bias.grad])


@pytest.mark.parametrize(("n", "width", "classes"), [(300, 12, 3), (400, 40, 10), (60, 100, 5)])
@pytest.mark.parametrize("decay", [1.0, 1e-2, 1e-4])
def test_equals_scikit_learn(n: int, width: int, classes: int, decay: float) -> None:
    from sklearn.linear_model import LogisticRegression

    features, labels = draw(n, width, classes, seed=n)
    found = ProbeProblem(features, labels, classes).fit(decay, tolerance=1e-14)
    peer = LogisticRegression(C=1 / (decay * n), tol=1e-9, max_iter=10_000, solver="newton-cg")
    peer.fit(features.double().numpy(), labels.numpy())
    assert found.converged
    scale = np.abs(peer.coef_).max()
    assert np.abs(found.weight.numpy() - peer.coef_).max() < 1e-4 * scale
    assert np.abs(found.bias.numpy() - (peer.intercept_ - peer.intercept_.mean())).max() < 1e-4 * scale
    assert float(found.bias.mean()) == pytest.approx(0, abs=1e-9)
    # Nothing is left to gain.
    assert float(gradient(found, features, labels).abs().max()) < 1e-6
    assert np.array_equal(found.scores(features).argmax(1), peer.predict(features.double().numpy()))


def test_two_classes_equal_scikit_learn_at_twice_its_c() -> None:
    from sklearn.linear_model import LogisticRegression

    features, labels = draw(200, 6, 2, seed=1)
    found = ProbeProblem(features, labels, 2).fit(1e-2, tolerance=1e-14)
    peer = LogisticRegression(C=2 / (1e-2 * 200), tol=1e-10, max_iter=1000).fit(features.numpy(), labels.numpy())
    assert (found.weight[1] - found.weight[0]).numpy() == pytest.approx(peer.coef_[0], abs=1e-4)


def test_one_against_the_rest_equals_scikit_learn_class_by_class() -> None:
    from sklearn.linear_model import LogisticRegression

    features, _ = draw(250, 15, 5, seed=2)
    random = torch.Generator().manual_seed(0)
    targets = (features @ torch.randn(15, 4, generator=random) + 0.3 * torch.randn(250, 4, generator=random)) > 0.1
    found = ProbeProblem(features, targets, 4).fit(1e-3, tolerance=1e-14)
    for place in range(4):
        peer = LogisticRegression(C=1 / (1e-3 * 250), tol=1e-9, max_iter=5000, solver="newton-cg")
        peer.fit(features.double().numpy(), targets[:, place].numpy())
        assert found.weight[place].numpy() == pytest.approx(peer.coef_[0], abs=1e-3)
        assert float(found.bias[place]) == pytest.approx(float(peer.intercept_[0]), abs=1e-3)


def test_no_worse_than_scikit_learn_where_that_gives_up() -> None:
    from sklearn.linear_model import LogisticRegression

    features, labels = draw(500, 30, 10, seed=3)
    found = ProbeProblem(features, labels, 10).fit(1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = LogisticRegression(C=1 / (1e-9 * 500), max_iter=3000).fit(features.double().numpy(), labels.numpy())
    weight, bias = torch.tensor(peer.coef_), torch.tensor(peer.intercept_)
    theirs = torch.nn.functional.cross_entropy(features.double() @ weight.T + bias, labels)
    assert found.loss <= float(theirs + 1e-9 / 2 * (weight**2).sum()) + 1e-7


def test_a_warm_start_and_the_order_change_nothing() -> None:
    features, labels = draw(300, 20, 6, seed=4)
    problem = ProbeProblem(features, labels, 6)
    cold = problem.fit(1e-3, tolerance=1e-13)
    warm = problem.fit(1e-3, start=problem.fit(1e-2), tolerance=1e-13)
    again = problem.fit(1e-3, start=cold, tolerance=1e-13)
    assert torch.allclose(cold.weight, warm.weight, atol=1e-5)
    assert again.steps <= 2 < cold.steps
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    mixed = ProbeProblem(features[order], labels[order], 6).fit(1e-3, tolerance=1e-13)
    assert torch.allclose(cold.weight, mixed.weight, atol=1e-5)
    doubled = ProbeProblem(features.repeat(2, 1), labels.repeat(2), 6).fit(1e-3, tolerance=1e-13)
    assert torch.allclose(cold.weight, doubled.weight, atol=1e-5)


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = draw(100, 8, 4, seed=5)
    whole = ProbeProblem(features, labels, 4).fit(1e-3)
    monkeypatch.setattr("clip_eval.probe.solver._BLOCK", 28)
    assert torch.allclose(whole.weight, ProbeProblem(features, labels, 4).fit(1e-3).weight, atol=1e-6)


def test_equal_features_leave_the_bias_alone_to_learn() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    found = ProbeProblem(torch.ones(4, 5), labels, 2).fit(1e-3, tolerance=1e-14)
    assert not found.weight.any()
    assert found.scores(torch.ones(1, 5)).softmax(1)[0].tolist() == pytest.approx([0.75, 0.25], abs=1e-5)


def test_refuses_what_has_no_optimum() -> None:
    features, labels = draw(30, 4, 3, seed=6)
    with pytest.raises(ConfigError, match="Of 4 classes 1 have no example"):
        ProbeProblem(features, labels, 4)
    with pytest.raises(ConfigError, match="allowed: above 0"):
        ProbeProblem(features, labels, 3).fit(0.0)
    with pytest.raises(ConfigError, match="nothing but examples"):
        ProbeProblem(features, torch.ones(30, 2, dtype=torch.bool), 2)
    features[3, 1] = torch.nan
    with pytest.raises(DataError, match="NaN or infinity"):
        ProbeProblem(features, labels, 3)
