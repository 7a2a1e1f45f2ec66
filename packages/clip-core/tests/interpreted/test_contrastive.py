"""CLIP's loss by Triton's programs, in the interpreter, against float64 in two forms: autograd through the whole matrix
of logits, and probabilities from logsumexp.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from clip_core.kernels import blocks, clip_loss, use_backend
from clip_core.kernels.programs import contrastive, tiles
from clip_core.kernels.programs.launching import LAUNCHES
from clip_core.kernels.programs.tiles import Tile, Tiles

SMALL = Tile(16, 16, 16, 4, 2)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(contrastive, "tiles_on", lambda features: Tiles(SMALL, SMALL, SMALL))


def unit(rows, depth, seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, depth, generator=generator), dim=-1).to(dtype)


def assert_close(found, wanted, rtol, atol):
    assert ((found - wanted).abs() <= atol + rtol * wanted.abs()).all(), (found, wanted)


def programs(x, y, scale):
    """Loss of rows and columns, and the gradients of their sum."""
    scale = torch.as_tensor(scale, dtype=torch.float32)
    own = torch.linalg.vecdot(x.float().contiguous(), y.float().contiguous())
    of_rows, of_columns = contrastive.contrastive_statistics(x, y, own, scale)
    losses = [blocks.log_sum_exp(found, torch.float64) for found in (of_rows, of_columns)]
    return (*losses, *contrastive.contrastive_gradients(x, y, own, scale, *losses)[:3])


def by_autograd(x, y, scale):
    x, y, scale = (torch.as_tensor(v).float().double().requires_grad_() for v in (x, y, scale))
    logits = scale * x @ y.T
    target = torch.arange(len(x))
    losses = [F.cross_entropy(each, target, reduction="none") for each in (logits, logits.T)]
    return (*(each.detach() for each in losses), *torch.autograd.grad(losses[0].sum() + losses[1].sum(), (x, y, scale)))


def by_probabilities(x, y, scale, dtype=torch.float64):
    """The same from logsumexp; with float32, what a careful implementation in torch gets from features like these."""
    rounded = x.dtype
    x, y, scale = x.to(dtype), y.to(dtype), torch.as_tensor(scale).float().to(dtype)
    cosines = x @ y.T
    logits = scale * cosines
    rows, columns = logits.logsumexp(1), logits.logsumexp(0)
    weights = (logits - rows[:, None]).exp() + (logits - columns).exp() - 2 * torch.eye(len(x), dtype=dtype)
    d_scale = (weights * cosines).sum()
    if dtype == torch.float32:
        weights = weights.to(rounded).to(dtype)
    pairs = logits.diagonal()
    return rows - pairs, columns - pairs, scale * weights @ y, scale * weights.T @ x, d_scale


def assert_as_exact(x, y, scale):
    """Errors of at most 1.2 times those of float32 logits, or of a few roundings of a logit and of a sum's terms."""
    found, exact = programs(x, y, scale), by_autograd(x, y, scale)
    other, reference = by_probabilities(x, y, scale), by_probabilities(x, y, scale, torch.float32)
    x, y, scale = x.double(), y.double(), abs(float(scale))
    logit = 1 + scale * float((x @ y.T).abs().max())
    sizes = (len(x) ** 0.5, len(x) ** 0.5, 4 * scale * y.norm(), 4 * scale * x.norm(), 4 * x.norm() * y.norm())
    names = ("rows", "columns", "d_rows", "d_columns", "d_scale")
    for name, ours, wanted, same, theirs, size in zip(names, found, exact, other, reference, sizes, strict=True):
        assert (wanted - same).norm() <= 1e-12 * logit * size, name
        error, allowed = (ours - wanted).norm(), 1.2 * (theirs - wanted).norm() + 2**-21 * logit * size
        assert error <= allowed, (name, float(error), float(allowed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("pairs", "scale"), [(41, 14.3), (35, 100.0), (33, -5.0)])
def test_as_exact_as_torch_with_float32_logits(dtype, pairs, scale):
    assert_as_exact(unit(pairs, 24, 0, dtype), unit(pairs, 24, 1, dtype), scale)


@pytest.mark.parametrize("pairs", [1, 2, 15, 16, 17, 32])
def test_any_number_of_pairs(pairs):
    assert_as_exact(unit(pairs, 16, 2), unit(pairs, 16, 3), 1e-4 * 50**pairs if pairs < 4 else 50.0)


@pytest.mark.parametrize("depth", [1, 2, 8, 24, 640, 1000, 1152])
def test_any_number_of_features(depth, monkeypatch):
    wide = SMALL._replace(depth=tiles.tiles_for(torch.float32, depth, 80).weights.depth)
    monkeypatch.setattr(contrastive, "tiles_on", lambda features: Tiles(wide, wide, wide))
    assert_as_exact(unit(18, depth, 4), unit(18, depth, 5), 14.3)


def test_a_large_loss_keeps_the_digits_of_its_gradients():
    # In float32 alone a loss of 1,000 has 5 digits behind the point, and what is relative to it no more.
    x, y = torch.eye(20).requires_grad_(), (-torch.eye(20)).requires_grad_()
    with use_backend("triton"):
        clip_loss(x, y, 1000.0).backward()
    exact = by_autograd(x.detach(), y.detach(), 1000.0)
    for given, wanted in ((x, exact[2] / 40), (y, exact[3] / 40)):
        assert_close(given.grad.double(), wanted, rtol=2e-6, atol=1e-6)


def _far():
    x = unit(20, 16, 6)
    return x, -x


def _duplicates():
    x = unit(20, 16, 7)
    x[10:] = x[:10]
    return x, F.normalize(x + 0.1 * unit(20, 16, 8), dim=-1)


def _huge_row():
    x, y = unit(20, 16, 9), unit(20, 16, 10)
    x[17] *= 50
    return x, y


def _zero_rows():
    x, y = unit(20, 16, 11), unit(20, 16, 12)
    x[3] = 0
    y[17] = 0
    return x, y


INPUTS = {
    "orthogonal sides": lambda: (F.pad(unit(20, 8, 13), (0, 8)), F.pad(unit(20, 8, 14), (8, 0))),
    "opposite pairs": _far,
    "perfect pairs": lambda: (unit(20, 16, 15), unit(20, 16, 15)),
    "all the same": lambda: (unit(1, 16, 16).repeat(20, 1), unit(1, 16, 17).repeat(20, 1)),
    "half duplicates": _duplicates,
    "a huge row": _huge_row,
    "rows of zero": _zero_rows,
}


@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0, 1000.0])
@pytest.mark.parametrize("name", INPUTS)
def test_inputs_that_are_hard(name, scale):
    assert_as_exact(*INPUTS[name](), scale)


def test_a_loss_near_zero_keeps_its_digits():
    x = torch.eye(20)
    row_loss = programs(x, x, 30.0)[0]
    assert_close(row_loss.double(), torch.tensor(math.log1p(19 * math.exp(-30.0))).double(), rtol=4e-6, atol=0)


@pytest.mark.parametrize("cut", [17, 32])
def test_shares_of_several_processes_make_the_whole(cut):
    x, y, scale = unit(41, 24, 18), unit(41, 24, 19), torch.tensor(20.0)
    own = torch.linalg.vecdot(x, y)
    wanted = by_probabilities(x, y, 20.0)
    shares = [(x[:cut], 0), (x[cut:], cut)]
    found = [contrastive.contrastive_statistics(rows, y, own, scale, offset) for rows, offset in shares]
    rows = torch.cat([blocks.log_sum_exp(of_rows) for of_rows, _ in found])
    columns = blocks.log_sum_exp(found[0][1].merged(found[1][1]))
    assert_close(rows, wanted[0], rtol=1e-6, atol=1e-6)
    assert_close(columns, wanted[1], rtol=1e-6, atol=1e-6)
    gradients = [
        contrastive.contrastive_gradients(part, y, own, scale, rows[offset : offset + len(part)], columns, offset)
        for part, offset in shares
    ]
    d_rows, d_columns = torch.cat([g.rows for g in gradients]), gradients[0].columns + gradients[1].columns
    assert_close(d_rows, wanted[2], rtol=1e-5, atol=1e-5)
    assert_close(d_columns, wanted[3], rtol=1e-5, atol=1e-5)
    assert_close(gradients[0].scale + gradients[1].scale, wanted[4], rtol=1e-6, atol=1e-6)


def test_many_panels_and_slabs(monkeypatch):
    monkeypatch.setattr(tiles, "PANEL_ROWS", 32)
    monkeypatch.setattr(tiles, "SLAB_BYTES", 32 * 32 * 4)
    monkeypatch.setattr(tiles, "MOST_PARTS", 2)
    before = LAUNCHES.copy()
    assert_as_exact(unit(70, 24, 20), unit(70, 24, 21), 14.3)
    assert LAUNCHES["tile_statistics"] - before["tile_statistics"] == 3
    assert LAUNCHES["tile_weights"] - before["tile_weights"] == 9


def test_a_tile_in_four_pieces(monkeypatch):
    wide = Tile(16, 128, 32, 4, 2)
    monkeypatch.setattr(contrastive, "tiles_on", lambda features: Tiles(wide, wide, wide))
    assert_as_exact(unit(150, 40, 22), unit(150, 40, 23), 14.3)


def _layouts(x):
    wider = torch.zeros(len(x), 40).to(x.dtype)
    wider[:, 3 : 3 + x.shape[1]] = x
    storage = torch.zeros(1 + x.numel()).to(x.dtype)
    return {
        "slice": wider[:, 3 : 3 + x.shape[1]],
        "transposed": x.T.contiguous().T,
        "not aligned": storage[1:].copy_(x.flatten()).view(x.shape),
        "every other": torch.stack((x, -x), 1).flatten(0, 1)[::2],
    }


@pytest.mark.parametrize("layout", ["slice", "transposed", "not aligned", "every other"])
def test_any_layout(layout):
    x, y = unit(20, 24, 24), unit(20, 24, 25)
    laid = _layouts(x)[layout]
    assert not laid.is_contiguous() or laid.data_ptr() % 16
    for found, wanted in zip(programs(laid, _layouts(y)[layout], 14.3), programs(x, y, 14.3), strict=True):
        assert torch.equal(found, wanted)


def test_one_row_for_all():
    x = unit(1, 16, 26).expand(20, 16)
    assert x.stride() == (0, 1)
    assert_as_exact(x, unit(20, 16, 27), 14.3)


def test_addresses_beyond_32_bits():
    # 2**31 elements apart; of this memory only the pages that are written exist.
    x = torch.empty(2**31 + 64, dtype=torch.float16).as_strided((3, 16), (2**30, 1))
    x.copy_(unit(3, 16, 28))
    y = unit(3, 16, 29, torch.float16)
    for found, wanted in zip(programs(x, y, 14.3), programs(x.contiguous(), y, 14.3), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_same_bits_twice_and_everything_written(dtype, monkeypatch):
    x, y = unit(41, 24, 30, dtype), unit(41, 24, 31, dtype)
    first = programs(x, y, 14.3)

    def poisoned(make):
        return lambda *args, **options: make(*args, **options).fill_(torch.nan)

    monkeypatch.setattr(torch, "empty", poisoned(torch.empty))
    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned(torch.Tensor.new_empty))
    for found, wanted in zip(programs(x, y, 14.3), first, strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, in the interpreter
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("pairs", [1, 20])
def test_what_is_not_finite_is_not_hidden(value, pairs):
    x, y = unit(pairs, 16, 32), unit(pairs, 16, 33)
    x[pairs - 1, 3] = value
    row_loss, column_loss, *gradients = programs(x, y, 14.3)
    assert not row_loss[-1].isfinite()
    assert not column_loss.isfinite().all()
    assert not any(gradient.isfinite().all() for gradient in gradients)
    assert torch.isfinite(row_loss[:-1]).all()


@pytest.mark.parametrize(("rows", "columns"), [(0, 5), (0, 0), (5, 0)])
def test_nothing_to_compare_with(rows, columns):
    x, y, scale = torch.zeros(rows, 8), torch.zeros(columns, 8), torch.tensor(2.0)
    own = torch.zeros(max(rows, columns))
    for statistics, count in zip(contrastive.contrastive_statistics(x, y, own, scale), (rows, columns), strict=True):
        assert torch.equal(statistics.maximum, torch.zeros(count))
        assert torch.equal(statistics.rest, torch.zeros(count))
    if rows == 0:
        found = contrastive.contrastive_gradients(x, y, own, scale, torch.zeros(rows), torch.zeros(columns))
        assert torch.equal(found.rows, torch.zeros(0, 8))
        assert torch.equal(found.columns, torch.zeros(columns, 8))
        assert found.scale == 0


def test_only_the_gradients_asked_for():
    x, y, scale = unit(20, 16, 34), unit(20, 16, 35), torch.tensor(14.3)
    own = torch.linalg.vecdot(x, y)
    losses = programs(x, y, 14.3)[:2]
    whole = contrastive.contrastive_gradients(x, y, own, scale, *losses)
    assert (whole.scale.dtype, whole.bias.dtype, float(whole.bias)) == (torch.float64, torch.float64, 0.0)
    for for_rows, for_columns in ((True, False), (False, True), (False, False)):
        found = contrastive.contrastive_gradients(x, y, own, scale, *losses, for_rows=for_rows, for_columns=for_columns)
        assert torch.equal(found.rows, whole.rows if for_rows else torch.empty(0))
        assert torch.equal(found.columns, whole.columns if for_columns else torch.empty(0))
        assert torch.equal(found.scale, whole.scale)


def test_the_public_loss_runs_these_programs():
    x, y = unit(41, 24, 36), unit(41, 24, 37)
    inputs = [v.requires_grad_() for v in (x, y, torch.tensor(14.3))]
    before = LAUNCHES.copy()
    with use_backend("triton"):
        loss = clip_loss(*inputs)
        loss.backward()
    assert {name for name in LAUNCHES if LAUNCHES[name] > before[name]} == {
        "tile_statistics",
        "merge_statistics",
        "tile_weights",
        "multiply_float32",
    }
    exact = by_autograd(*(v.detach() for v in inputs))
    wanted = (exact[0].mean() + exact[1].mean()) / 2
    assert_close(loss.detach().double(), wanted, rtol=1e-6, atol=0)
    for given, gradient in zip(inputs, exact[2:], strict=True):
        assert_close(given.grad.double(), gradient / 82, rtol=1e-5, atol=1e-7)
