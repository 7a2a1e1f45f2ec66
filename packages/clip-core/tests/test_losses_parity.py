"""The contrastive losses against float64 arithmetic in two forms and against open_clip's, over tiles of every shape."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import SigLipLoss
from torch import Tensor

from clip_core.errors import ConfigError
from clip_core.kernels import blocks, clip_loss, siglip_loss

pytestmark = pytest.mark.parity

Loss = Callable[..., Tensor]


def rows(batch: int, dim: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(batch, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))


def pairs(kind: str, batch: int, dim: int = 16) -> tuple[Tensor, Tensor]:
    """Float64 features (batch, dim) of length 1, by what is hard about them."""
    x, y = rows(batch, dim, 1), rows(batch, dim, 2)
    if kind == "aligned":  # a loss of almost 0
        y = F.normalize(x + 1e-3 * y)
    elif kind == "trained":  # some signal, and rows that agree with each other
        common = rows(1, dim, 3)
        x, y = F.normalize(x + common), F.normalize(x + 0.8 * y + 0.5 * common)
    elif kind == "duplicates":
        x[batch // 2 :] = x[: batch - batch // 2].clone()
    elif kind == "antipodal":
        y = -x
    elif kind == "orthogonal":  # every cosine is 0
        x, y = x.clone(), y.clone()
        x[:, dim // 2 :] = 0
        y[:, : dim // 2] = 0
        x, y = F.normalize(x), F.normalize(y)
    return x, y


KINDS = ["random", "aligned", "trained", "duplicates", "antipodal", "orthogonal"]


def by_matrix(x: Tensor, y: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    logits = scale * x @ y.T
    return -(logits.log_softmax(1).diagonal() + logits.log_softmax(0).diagonal()).mean() / 2


def by_terms(x: Tensor, y: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    logits = scale * x @ y.T
    own = logits.diagonal()
    return (logits.logsumexp(1) - own + logits.logsumexp(0) - own).sum() / (2 * len(x))


def sigmoid_by_matrix(x: Tensor, y: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    labels = 2 * torch.eye(len(x), dtype=x.dtype) - 1
    return -F.logsigmoid(labels * (scale * x @ y.T + bias)).sum() / len(x)


def sigmoid_by_terms(x: Tensor, y: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    logits = scale * x @ y.T + bias
    return (F.softplus(logits, threshold=1000).sum() - logits.diagonal().sum()) / len(x)


def run(loss: Loss, x: Tensor, y: Tensor, scale: float, bias: float | None, dtype: torch.dtype) -> list[Tensor]:
    """Loss and gradients of both features, the scale and the bias, in float64."""
    inputs = [value.detach().to(dtype, copy=True).requires_grad_() for value in (x, y)]
    inputs.append(torch.tensor(scale, dtype=dtype, requires_grad=True))
    if bias is not None:
        inputs.append(torch.tensor(bias, dtype=dtype, requires_grad=True))
    value = loss(*inputs)
    value.backward()
    return [item.detach().double() for item in (value, *(given.grad for given in inputs if given.grad is not None))]


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "TILE", 8)


BATCHES = [1, 2, 8, 9, 23, 24]


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_clip_loss_in_double_is_the_formula(kind: str, batch: int, scale: float) -> None:
    x, y = pairs(kind, batch)
    ours = run(clip_loss, x, y, scale, None, torch.float64)
    for form in (by_matrix, by_terms):
        for found, expected in zip(ours, run(form, x, y, scale, None, torch.float64), strict=True):
            torch.testing.assert_close(found, expected, atol=2e-12, rtol=1e-10)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("scale", "bias"), [(1.0, 0.0), (10.0, -10.0), (110.0, -17.0)])
def test_siglip_loss_in_double_is_the_formula(kind: str, batch: int, scale: float, bias: float) -> None:
    x, y = pairs(kind, batch)
    ours = run(siglip_loss, x, y, scale, bias, torch.float64)
    for form in (sigmoid_by_matrix, sigmoid_by_terms):
        for found, expected in zip(ours, run(form, x, y, scale, bias, torch.float64), strict=True):
            torch.testing.assert_close(found, expected, atol=2e-12, rtol=1e-10)


def error(found: Tensor, exact: Tensor) -> float:
    return ((found - exact).norm() / exact.norm().clamp_min(1e-30)).item()


# What counts as no error: a few units in the last place of float32, of the loss or of its largest terms.
FLOOR = 2e-6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", ["clip", "siglip"])
@pytest.mark.parametrize("scale", [14.3, 100.0])
def test_float32_is_no_less_exact_than_open_clip(kind: str, which: str, scale: float) -> None:
    x, y = (side.float().double() for side in pairs(kind, 1100, 32))  # the very numbers that float32 starts from
    bias = None if which == "clip" else -10.0
    exact, ours, theirs = {
        "clip": (by_matrix, clip_loss, open_clip.ClipLoss()),
        "siglip": (sigmoid_by_matrix, siglip_loss, SigLipLoss()),
    }[which]
    reference = run(exact, x, y, scale, bias, torch.float64)
    found = run(ours, x, y, scale, bias, torch.float32)
    peer = run(theirs, x, y, scale, bias, torch.float32)
    names = ["loss", "images", "texts", "scale", "bias"][: len(found)]
    for name, value, other, truth in zip(names, found, peer, reference, strict=True):
        assert error(value, truth) <= 1.2 * error(other, truth) + FLOOR, name


def test_the_gradient_of_the_scale_survives_where_the_formula_cancels() -> None:
    x, y = (side.float().double() for side in pairs("trained", 500, 32))
    truth = run(by_matrix, x, y, 100.0, None, torch.float64)[3]
    assert error(run(clip_loss, x, y, 100.0, None, torch.float32)[3], truth) < 1e-5


def test_a_loss_near_zero_keeps_its_digits() -> None:
    x = torch.eye(8, dtype=torch.float64)
    exact = run(clip_loss, x, x, 20.0, None, torch.float64)[0]
    torch.testing.assert_close(exact, torch.log1p(7 * torch.exp(torch.tensor(-20.0).double())), rtol=1e-12, atol=0)
    torch.testing.assert_close(run(clip_loss, x, x, 20.0, None, torch.float32)[0], exact, rtol=1e-5, atol=0)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_shares_of_rows_add_up_to_the_whole(processes: int) -> None:
    x, y = pairs("trained", 36)
    scale, own = torch.tensor(30.0, dtype=torch.float64), (x * y).sum(1)
    cuts = [36 * rank // processes for rank in range(processes + 1)]
    parts = [blocks.contrastive_statistics(x[a:b], y, own, scale, a) for a, b in itertools.pairwise(cuts)]
    row_loss = torch.cat([blocks.log_sum_exp(part[0]) for part in parts])
    merged = parts[0][1]
    for part in parts[1:]:
        merged = merged.merged(part[1])
    column_loss = blocks.log_sum_exp(merged)
    shares = [
        blocks.contrastive_gradients(x[a:b], y, own, scale, row_loss[a:b], column_loss, a)
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
    shares = [blocks.sigmoid_loss(x[a:b], y, scale, bias, a) for a, b in itertools.pairwise(cuts)]
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


@pytest.mark.parametrize("loss", [clip_loss, siglip_loss])
def test_the_same_input_gives_the_same_bits(loss: Loss) -> None:
    x, y = pairs("random", 1500)
    for first, second in zip(*(run(loss, x, y, 50.0, -5.0, torch.float32) for _ in range(2)), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("loss", [clip_loss, siglip_loss])
@pytest.mark.parametrize("frozen", [{0}, {1}, {0, 1}, {2, 3}, {0, 2, 3}])
def test_what_is_frozen_has_no_gradient_and_changes_no_other(loss: Loss, frozen: set[int]) -> None:
    x, y = pairs("random", 20)
    full = run(loss, x, y, 20.0, -3.0, torch.float64)[1:]
    values = [x, y, torch.tensor(20.0).double(), torch.tensor(-3.0).double()]
    inputs = [value.clone().requires_grad_(index not in frozen) for index, value in enumerate(values)]
    loss(*inputs).backward()
    for index, (value, expected) in enumerate(zip(inputs, full, strict=True)):
        assert (value.grad is None) if index in frozen else torch.equal(value.grad, expected)


@pytest.mark.parametrize("loss", [clip_loss, siglip_loss])
def test_upstream_gradients_of_a_scaler_and_accumulation(loss: Loss) -> None:
    x, y = pairs("random", 20)
    single = run(loss, x, y, 20.0, -3.0, torch.float32)[1]
    image = x.float().requires_grad_()
    for _ in range(2):
        (loss(image, y.float(), torch.tensor(20.0), torch.tensor(-3.0)) * 2.0**16).backward()
    torch.testing.assert_close(image.grad.double() / 2**17, single, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("loss", [clip_loss, siglip_loss])
def test_nothing_is_kept_without_gradients(loss: Loss) -> None:
    x, y = pairs("random", 20)
    image = x.requires_grad_()
    with torch.no_grad():
        assert not loss(image, y, torch.tensor(20.0), torch.tensor(-3.0)).requires_grad


@pytest.mark.parametrize("loss", [clip_loss, siglip_loss])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast_do_not_blur_the_logits(loss: Loss, dtype: torch.dtype) -> None:
    x, y = (side.to(dtype) for side in pairs("random", 64))
    scale, bias = torch.tensor(100.0), torch.tensor(-10.0)
    exact = loss(x.float(), y.float(), scale, bias)
    image = x.clone().requires_grad_()
    low = loss(image, y, scale, bias)
    low.backward()
    assert low.dtype == torch.float32
    assert image.grad.dtype == dtype
    assert torch.equal(low, exact)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(x.float(), y.float(), scale, bias), exact)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's checker looks at it
@pytest.mark.parametrize("loss", [clip_loss, siglip_loss])
@pytest.mark.parametrize("frozen", [(), (0,), (1, 2)])
def test_the_operators_keep_torchs_rules(loss: Loss, frozen: tuple[int, ...]) -> None:
    x, y = (side.float() for side in pairs("random", 12))
    inputs: list[Any] = [x, y, torch.tensor(9.0), torch.tensor(-2.0)]
    for index, value in enumerate(inputs):
        value.requires_grad_(index not in frozen)
    if loss is clip_loss:
        torch.library.opcheck(torch.ops.clip_core.clip_loss.default, (*inputs[:3], "torch", torch.float32))
    else:
        flags = (True, inputs[0].requires_grad, inputs[1].requires_grad)
        torch.library.opcheck(torch.ops.clip_core.siglip_loss.default, (*inputs, *flags, "torch", torch.float32))


@pytest.mark.parametrize("loss", [clip_loss, siglip_loss])
def test_both_compile_into_one_graph(loss: Loss) -> None:
    x, y = pairs("random", 12)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for found, expected in zip(
        run(compiled, x, y, 9.0, -2.0, torch.float32), run(loss, x, y, 9.0, -2.0, torch.float32), strict=True
    ):
        assert torch.equal(found, expected)


def test_the_bias_cancels_and_has_a_gradient_of_zero() -> None:
    x, y = pairs("random", 5)
    found = run(clip_loss, x, y, 10.0, -7.0, torch.float32)
    assert torch.equal(found[0], run(clip_loss, x, y, 10.0, None, torch.float32)[0])
    assert found[4] == 0


@pytest.mark.parametrize("loss", [clip_loss, siglip_loss])
@pytest.mark.parametrize("shapes", [((3, 4), (2, 4)), ((3, 4), (3, 5)), ((0, 4), (0, 4)), ((4,), (4,))])
def test_sides_that_do_not_pair_are_refused(loss: Loss, shapes: Any) -> None:
    with pytest.raises(ConfigError, match="allowed: two of one shape"):
        loss(torch.zeros(shapes[0]), torch.zeros(shapes[1]), torch.tensor(1.0), torch.tensor(0.0))


MEMORY = """
import resource, sys, torch
from clip_core import kernels
loss, batch = getattr(kernels, sys.argv[1]), 6144
def step(count):
    x, y = (torch.nn.functional.normalize(torch.randn(count, 32)).requires_grad_() for _ in range(2))
    loss(x, y, torch.tensor(10.0), torch.tensor(-10.0)).backward()
step(1500)  # tiles, threads and code are there now
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step(batch)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / (4 * batch**2))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is that of Linux")
@pytest.mark.parametrize("loss", ["clip_loss", "siglip_loss"])
def test_the_matrix_of_logits_exists_nowhere(loss: str) -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY, loss], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.2  # of one such matrix; a plain loss holds four
