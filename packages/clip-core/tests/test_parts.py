"""The parts of the losses: shares of a batch, how a loss is chosen to be computed, and products of pairs."""

from __future__ import annotations

import itertools

import pytest
import torch

from clip_core.errors import ConfigError
from clip_core.kernels import blocks, parts, use_backend
from loss_cases import by_matrix, pairs, run, sigmoid_by_matrix


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "TILE", 8)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_shares_of_rows_add_up_to_the_whole(processes: int) -> None:
    x, y = pairs("trained", 36)
    scale, own = torch.tensor(30.0, dtype=torch.float64), (x * y).sum(1)
    cuts = [36 * rank // processes for rank in range(processes + 1)]
    found = [parts.contrastive_statistics(x[a:b], y, own, scale, a) for a, b in itertools.pairwise(cuts)]
    row_loss = torch.cat([parts.log_sum_exp(part[0]) for part in found])
    merged = found[0][1]
    for part in found[1:]:
        merged = merged.merged(part[1])
    column_loss = parts.log_sum_exp(merged)
    shares = [
        parts.contrastive_gradients(x[a:b], y, own, scale, row_loss[a:b], column_loss, a)
        for a, b in itertools.pairwise(cuts)
    ]
    loss, dx, dy, dscale = run(by_matrix, x, y, 30.0, None, torch.float64)
    torch.testing.assert_close((row_loss.mean() + column_loss.mean()) / 2, loss, atol=1e-13, rtol=1e-13)
    torch.testing.assert_close(torch.cat([share.rows for share in shares]) / 72, dx, atol=1e-13, rtol=1e-12)
    torch.testing.assert_close(sum(share.columns for share in shares) / 72, dy, atol=1e-13, rtol=1e-12)
    torch.testing.assert_close(sum(share.scale for share in shares) / 72, dscale, atol=1e-13, rtol=1e-12)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_shares_of_the_sigmoid_loss_add_up_to_the_whole(processes: int) -> None:
    x, y = pairs("trained", 36)
    scale, bias = (torch.tensor(value, dtype=torch.float64) for value in (30.0, -10.0))
    cuts = [36 * rank // processes for rank in range(processes + 1)]
    shares = [parts.sigmoid_loss(x[a:b], y, scale, bias, a) for a, b in itertools.pairwise(cuts)]
    expected = run(sigmoid_by_matrix, x, y, 30.0, -10.0, torch.float64)
    found = [
        sum(loss for loss, _ in shares),
        torch.cat([share.rows for _, share in shares]),
        sum(share.columns for _, share in shares),
        sum(share.scale for _, share in shares),
        sum(share.bias for _, share in shares),
    ]
    for value, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(value / 36, truth, atol=1e-13, rtol=1e-12)


HALVES = (torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32, torch.float64])
def test_torch_computes_in_float32_or_in_float64(dtype: torch.dtype) -> None:
    x = torch.zeros(2, 4, dtype=dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert parts.choose(x, x) == parts.choose(x, torch.zeros(2, 4).to(wide)) == ("torch", wide)
    assert parts.wide(dtype) == wide


def test_triton_multiplies_halves_as_they_are_and_follows_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clip_core.kernels.dispatch.why_no_triton", lambda device: None)
    full, (brain, half) = torch.zeros(2, 4), (torch.zeros(2, 4, dtype=dtype) for dtype in HALVES)
    with use_backend("triton"):
        for x, y, outside, inside in (
            (full, full, torch.float32, torch.float16),
            (brain, brain, torch.bfloat16, torch.bfloat16),
            (half, half, torch.float16, torch.float16),
            (full, brain, torch.float32, torch.float16),
            (brain, half, torch.float32, torch.float16),
        ):
            assert parts.choose(x, y) == ("triton", outside)
            with torch.autocast("cpu", dtype=torch.float16):
                assert parts.choose(x, y) == ("triton", inside)
        with pytest.raises(ConfigError, match="features of float64 have none"):
            parts.choose(full, full.double())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [0, 1, 2, 63, 64, 65, 200])
def test_the_cosines_of_pairs(dtype: torch.dtype, batch: int) -> None:
    x, y = (side.to(dtype) for side in pairs("random", max(batch, 3), 24))
    x, y = x[:batch], y[:batch]
    found = parts.pair_cosines(x, y)
    assert found.dtype == parts.wide(dtype)
    torch.testing.assert_close(found.double(), (x.double() * y.double()).sum(1), rtol=0, atol=3e-7)


def test_a_loss_far_from_zero_keeps_the_digits_of_its_gradient() -> None:
    x, y = (side.float().double() for side in pairs("antipodal", 200, 64))
    _, dx, _, _ = run(by_matrix, x, y, 1000.0, None, torch.float64)
    rows, columns, scale = x.float(), y.float(), torch.tensor(1000.0)
    own = parts.pair_cosines(rows, columns)
    found = parts.contrastive_statistics(rows, columns, own, scale)
    for dtype, most in ((torch.float64, 1e-5), (torch.float32, 1e-3)):
        losses = (parts.log_sum_exp(side, dtype) for side in found)
        share = parts.contrastive_gradients(rows, columns, own, scale, *losses)
        assert (share.rows.double() / 400 - dx).norm() < most * dx.norm()
