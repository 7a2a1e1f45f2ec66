"""The contrastive losses against float64 arithmetic in two forms, against torch with the whole matrix of logits in
float32, and against open_clip's, over tiles of every shape.
"""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
from open_clip.loss import SigLipLoss
from torch import Tensor

from clip_core.kernels import blocks, clip_loss, siglip_loss
from loss_cases import KINDS, by_matrix, by_terms, pairs, run, sigmoid_by_matrix, sigmoid_by_terms

pytestmark = pytest.mark.parity


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "TILE", 8)


BATCHES = [1, 8, 9, 23]


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("scale", [0.0, 14.3, 100.0])
def test_clip_loss_in_double_is_the_formula(kind: str, batch: int, scale: float) -> None:
    x, y = pairs(kind, batch)
    ours = run(clip_loss, x, y, scale, None, torch.float64)
    for form in (by_matrix, by_terms):
        for found, expected in zip(ours, run(form, x, y, scale, None, torch.float64), strict=True):
            torch.testing.assert_close(found, expected, atol=2e-12 * float(x.norm(dim=1).max()) ** 2, rtol=1e-10)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("scale", "bias"), [(1.0, 0.0), (10.0, -10.0), (110.0, -17.0)])
def test_siglip_loss_in_double_is_the_formula(kind: str, batch: int, scale: float, bias: float) -> None:
    x, y = pairs(kind, batch)
    ours = run(siglip_loss, x, y, scale, bias, torch.float64)
    for form in (sigmoid_by_matrix, sigmoid_by_terms):
        for found, expected in zip(ours, run(form, x, y, scale, bias, torch.float64), strict=True):
            torch.testing.assert_close(found, expected, atol=2e-12 * float(x.norm(dim=1).max()) ** 2, rtol=1e-10)


# What counts as no error: a few units in the last place of float32, and for what is proportional to a probability of
# almost 0, or where logits are huge, two such units of the largest logit.
FLOOR = 2e-6
SCALES = [0.0, 1e-4, 1.0, 14.3, 50.0, 100.0, 1000.0]
BY_FLOAT = {"clip": by_matrix, "siglip": sigmoid_by_matrix}
EXACT = {"clip": by_terms, "siglip": sigmoid_by_terms}
OURS = {"clip": clip_loss, "siglip": siglip_loss}
NAMES = ["loss", "images", "texts", "scale", "bias"]


def check_errors(which: str, x: Tensor, y: Tensor, scale: float) -> None:
    """Each error against float64 is at most 1.2 times that of a matrix of float32 logits."""
    x, y = x.float().double(), y.float().double()  # the very numbers that float32 starts from
    bias = None if which == "clip" else -10.0
    truth = run(EXACT[which], x, y, scale, bias, torch.float64)
    ours = run(OURS[which], x, y, scale, bias, torch.float32)
    plain = run(BY_FLOAT[which], x, y, scale, bias, torch.float32)
    # A gradient whose terms cancel is as exact as they are: a weight of 1 for each pair would give it this size.
    terms = [1e-7, *(1e-7 * scale * side.norm().item() / len(x) for side in (y, x)), 1e-7, 1e-7]
    largest = scale * (x @ y.T).abs().max().item()
    for name, found, other, exact, of_terms in zip(NAMES, ours, plain, truth, terms, strict=False):
        floor = FLOOR + (2.0**-22 * largest if name == "loss" or largest > 150 else 0)
        allowed = 1.2 * (other - exact).norm() + floor * exact.norm()
        if name == "scale" or (name in ("images", "texts") and exact.norm() < of_terms):
            allowed += of_terms
        assert (found - exact).norm() <= allowed, name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", ["clip", "siglip"])
@pytest.mark.parametrize("scale", SCALES)
def test_float32_is_as_exact_as_a_matrix_of_float32_logits(kind: str, which: str, scale: float) -> None:
    check_errors(which, *pairs(kind, 129, 24), scale)


@pytest.mark.parametrize("which", ["clip", "siglip"])
@pytest.mark.parametrize("batch", [1, 2, 15, 16, 17, 63, 64, 65, 127, 129, 257])
def test_of_any_number_of_pairs(which: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "TILE", 64)
    check_errors(which, *pairs("trained", batch, 24), 50.0)


@pytest.mark.parametrize("which", ["clip", "siglip"])
@pytest.mark.parametrize("dim", [8, 16, 24, 512, 640, 768, 896, 1000, 1024, 1152])
def test_of_any_dimension(which: str, dim: int) -> None:
    check_errors(which, *pairs("duplicates", 65, dim), 100.0)


PEERS: dict[str, Any] = {"clip": open_clip.ClipLoss(), "siglip": SigLipLoss()}


@pytest.mark.parametrize("kind", ["random", "trained", "duplicates"])
@pytest.mark.parametrize("which", ["clip", "siglip"])
def test_below_the_error_of_open_clip_under_autocast(kind: str, which: str) -> None:
    x, y = (side.float().double() for side in pairs(kind, 300, 32))
    bias = None if which == "clip" else -10.0
    truth = run(EXACT[which], x, y, 100.0, bias, torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = run(OURS[which], x, y, 100.0, bias, torch.float32)
        theirs = run(PEERS[which], x, y, 100.0, bias, torch.float32)
    for name, found, other, exact in zip(NAMES, ours, theirs, truth, strict=False):
        assert (found - exact).norm() < 0.1 * (other - exact).norm(), name


def test_the_gradient_of_the_scale_survives_where_the_formula_cancels() -> None:
    x, y = (side.float().double() for side in pairs("trained", 500, 32))
    truth = run(by_matrix, x, y, 100.0, None, torch.float64)[3]
    found = run(clip_loss, x, y, 100.0, None, torch.float32)[3]
    torch.testing.assert_close(found, truth, rtol=1e-5, atol=0)


def test_a_loss_near_zero_keeps_its_digits() -> None:
    x = torch.eye(8, dtype=torch.float64)
    exact = run(clip_loss, x, x, 20.0, None, torch.float64)[0]
    torch.testing.assert_close(exact, torch.log1p(7 * torch.exp(torch.tensor(-20.0).double())), rtol=1e-12, atol=0)
    torch.testing.assert_close(run(clip_loss, x, x, 20.0, None, torch.float32)[0], exact, rtol=1e-5, atol=0)
