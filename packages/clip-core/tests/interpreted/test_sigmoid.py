"""SigLIP's loss by Triton's program, in the interpreter, against float64 in two forms: autograd through the whole
matrix of logits, and sigmoids.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clip_core.kernels import siglip_loss, use_backend
from clip_core.kernels.programs import sigmoid, tiles
from clip_core.kernels.programs.launching import LAUNCHES
from clip_core.kernels.programs.tiles import Tile, Tiles

SMALL = Tile(16, 16, 16, 4, 2)
NAMES = ("loss", "d_rows", "d_columns", "d_scale", "d_bias")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(sigmoid, "tiles_on", lambda features: Tiles(SMALL, SMALL, SMALL))


def unit(rows, depth, seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, depth, generator=generator), dim=-1).to(dtype)


def assert_close(found, wanted, rtol, atol):
    assert ((found - wanted).abs() <= atol + rtol * wanted.abs()).all(), (found, wanted)


def programs(x, y, scale, bias, offset=0, **options):
    loss, gradients = sigmoid.sigmoid_loss(x, y, torch.tensor(scale), torch.tensor(bias), offset, **options)
    return (loss, *gradients)


def signs(x, y, offset=0):
    return 2 * torch.eye(len(x) + offset, len(y), dtype=torch.float64)[offset:] - 1


def by_autograd(x, y, scale, bias, offset=0):
    inputs = [torch.as_tensor(v).float().double().requires_grad_() for v in (x, y, scale, bias)]
    a, b, t, shift = inputs
    loss = -F.logsigmoid(signs(x, y, offset) * (t * a @ b.T + shift)).sum()
    return (loss.detach(), *torch.autograd.grad(loss, inputs))


def by_sigmoids(x, y, scale, bias, offset=0, dtype=torch.float64):
    """The same written out; with float32, what a careful implementation in torch gets from features like these."""
    rounded, sign = x.dtype, signs(x, y, offset).to(dtype)
    x, y = x.to(dtype), y.to(dtype)
    scale, bias = (torch.as_tensor(v).float().to(dtype) for v in (scale, bias))
    cosines = x @ y.T
    logits = -sign * (scale * cosines + bias)
    weights = -sign * torch.sigmoid(logits)
    losses = torch.logaddexp(logits, torch.zeros_like(logits))
    d_scale, d_bias = (weights * cosines).sum(), weights.sum()
    if dtype == torch.float32:
        weights = weights.to(rounded).to(dtype)
    return losses.sum(), scale * weights @ y, scale * weights.T @ x, d_scale, d_bias


def assert_as_exact(x, y, scale, bias, offset=0):
    """Errors of at most 1.2 times those of float32 logits, or of a few roundings of a logit and of a sum's terms."""
    found, exact = programs(x, y, scale, bias, offset), by_autograd(x, y, scale, bias, offset)
    other = by_sigmoids(x, y, scale, bias, offset)
    reference = by_sigmoids(x, y, scale, bias, offset, torch.float32)
    cosines = x.double() @ y.double().T
    logit = 1 + float((scale * cosines + bias).abs().max())
    weights = torch.sigmoid(-signs(x, y, offset) * (scale * cosines + bias))
    sizes = (
        float(exact[0]),
        abs(scale) * (weights @ y.double().abs()).norm(),
        abs(scale) * (weights.T @ x.double().abs()).norm(),
        (weights * cosines.abs()).sum(),
        weights.sum(),
    )
    for name, ours, wanted, same, theirs, size in zip(NAMES, found, exact, other, reference, sizes, strict=True):
        assert (wanted - same).norm() <= 1e-11 * logit * size, name
        error, allowed = (ours - wanted).norm(), 1.2 * (theirs - wanted).norm() + 2**-21 * logit * size
        assert error <= allowed, (name, float(error), float(allowed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("pairs", "scale", "bias"), [(41, 10.0, -10.0), (35, 100.0, -16.5), (33, -5.0, 1.0)])
def test_as_exact_as_torch_with_float32_logits(dtype, pairs, scale, bias):
    assert_as_exact(unit(pairs, 24, 0, dtype), unit(pairs, 24, 1, dtype), scale, bias)


@pytest.mark.parametrize("pairs", [1, 2, 15, 16, 17, 32])
def test_any_number_of_pairs(pairs):
    assert_as_exact(unit(pairs, 16, 2), unit(pairs, 16, 3), 30.0, -3.0)


@pytest.mark.parametrize("depth", [1, 8, 24, 1000, 1152])
def test_any_number_of_features(depth, monkeypatch):
    wide = SMALL._replace(depth=tiles.tiles_for(torch.float32, depth, 80).losses.depth)
    monkeypatch.setattr(sigmoid, "tiles_on", lambda features: Tiles(wide, wide, wide))
    assert_as_exact(unit(18, depth, 4), unit(18, depth, 5), 14.3, -5.0)


INPUTS = {
    "orthogonal sides": lambda: (F.pad(unit(20, 8, 13), (0, 8)), F.pad(unit(20, 8, 14), (8, 0))),
    "opposite pairs": lambda: (unit(20, 16, 6), -unit(20, 16, 6)),
    "perfect pairs": lambda: (unit(20, 16, 15), unit(20, 16, 15)),
    "all the same": lambda: (unit(1, 16, 16).repeat(20, 1), unit(1, 16, 17).repeat(20, 1)),
    "rows of zero": lambda: (F.pad(unit(17, 16, 18), (0, 0, 3, 0)), unit(20, 16, 19)),
}


@pytest.mark.parametrize(("scale", "bias"), [(0.0, 0.0), (1.0, -17.0), (100.0, -10.0), (1000.0, 50.0)])
@pytest.mark.parametrize("name", INPUTS)
def test_inputs_that_are_hard(name, scale, bias):
    assert_as_exact(*INPUTS[name](), scale, bias)


@pytest.mark.parametrize("bias", [-10.0, -14.0, -17.0, -30.0])
def test_losses_near_zero_keep_their_digits(bias):
    # log(1 + exp(bias)), where adding 1 would take the digits away.
    x, y = torch.zeros(1, 16), torch.zeros(40, 16)
    loss = programs(x, y, 1.0, bias, 39)[0] - F.softplus(torch.tensor(-bias).double())
    assert_close(loss, 39 * torch.log1p(torch.tensor(bias).double().exp()), rtol=1e-5, atol=4e-6)
    far = programs(x, y, 1.0, bias, 1000)[0]
    assert_close(far, 40 * torch.log1p(torch.tensor(bias).double().exp()), rtol=3e-6, atol=0)


def test_shares_of_several_processes_make_the_whole():
    x, y = unit(41, 24, 20), unit(41, 24, 21)
    whole = by_sigmoids(x, y, 10.0, -3.0)
    shares = [programs(rows, y, 10.0, -3.0, offset) for rows, offset in ((x[:17], 0), (x[17:], 17))]
    found = [torch.cat(share) if name == "d_rows" else sum(share) for name, *share in zip(NAMES, *shares, strict=True)]
    for ours, wanted in zip(found, whole, strict=True):
        assert_close(ours.double(), wanted, rtol=1e-5, atol=1e-5)
    assert_as_exact(x[17:], y, 10.0, -3.0, 17)


def test_many_slabs(monkeypatch):
    monkeypatch.setattr(tiles, "PANEL_ROWS", 32)
    monkeypatch.setattr(tiles, "SLAB_BYTES", 32 * 32 * 4)
    before = LAUNCHES["tile_losses"]
    assert_as_exact(unit(70, 24, 22), unit(70, 24, 23), 10.0, -3.0)
    assert LAUNCHES["tile_losses"] - before == 9


def test_a_tile_in_four_pieces(monkeypatch):
    wide = Tile(16, 128, 32, 4, 2)
    monkeypatch.setattr(sigmoid, "tiles_on", lambda features: Tiles(wide, wide, wide))
    assert_as_exact(unit(150, 40, 24), unit(150, 40, 25), 10.0, -3.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_same_bits_twice_and_everything_written(dtype, monkeypatch):
    x, y = unit(41, 24, 26, dtype), unit(41, 24, 27, dtype)
    first = programs(x, y, 10.0, -3.0)

    def poisoned(make):
        return lambda *args, **options: make(*args, **options).fill_(torch.nan)

    monkeypatch.setattr(torch, "empty", poisoned(torch.empty))
    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned(torch.Tensor.new_empty))
    for found, wanted in zip(programs(x, y, 10.0, -3.0), first, strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, in the interpreter
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("pairs", [1, 20])
def test_what_is_not_finite_is_not_hidden(value, pairs):
    x, y = unit(pairs, 16, 32), unit(pairs, 16, 33)
    x[pairs - 1, 3] = value
    y[pairs - 1, 3] = -abs(y[pairs - 1, 3])
    found = programs(x, y, 10.0, -3.0)
    assert not found[0].isfinite()
    assert not found[2].isfinite().all()
    assert not found[3].isfinite()


@pytest.mark.parametrize(("rows", "columns"), [(0, 5), (0, 0), (5, 0)])
def test_nothing_to_compare_with(rows, columns):
    found = programs(torch.zeros(rows, 8), torch.zeros(columns, 8), 2.0, 0.0)
    wanted = (torch.zeros(()), torch.zeros(rows, 8), torch.zeros(columns, 8), torch.zeros(()), torch.zeros(()))
    for ours, expected in zip(found, wanted, strict=True):
        assert torch.equal(ours.float(), expected)


def test_only_the_gradients_asked_for():
    x, y = unit(20, 16, 34), unit(20, 16, 35)
    whole = programs(x, y, 10.0, -3.0)
    assert [v.dtype for v in whole] == [torch.float64, torch.float32, torch.float32, torch.float64, torch.float64]
    for for_rows, for_columns in ((True, False), (False, True), (False, False)):
        found = programs(x, y, 10.0, -3.0, for_rows=for_rows, for_columns=for_columns)
        assert torch.equal(found[1], whole[1] if for_rows else torch.empty(0))
        assert torch.equal(found[2], whole[2] if for_columns else torch.empty(0))
        assert all(torch.equal(found[i], whole[i]) for i in (0, 3, 4))
    alone = programs(x, y, 10.0, -3.0, gradients=False)
    assert torch.equal(alone[0], whole[0])
    assert [v.numel() for v in alone[1:3]] == [0, 0]


def test_the_public_loss_runs_this_program():
    x, y = unit(41, 24, 36), unit(41, 24, 37)
    inputs = [v.requires_grad_() for v in (x, y, torch.tensor(10.0), torch.tensor(-3.0))]
    before = LAUNCHES.copy()
    with use_backend("triton"):
        loss = siglip_loss(*inputs)
        loss.backward()
    assert {name for name in LAUNCHES if LAUNCHES[name] > before[name]} == {"tile_losses", "multiply_float32"}
    wanted, *gradients = by_autograd(*(v.detach() for v in inputs))
    assert_close(loss.detach().double(), wanted / 41, rtol=1e-6, atol=0)
    for given, gradient in zip(inputs, gradients, strict=True):
        assert_close(given.grad.double(), gradient / 41, rtol=1e-5, atol=1e-7)
