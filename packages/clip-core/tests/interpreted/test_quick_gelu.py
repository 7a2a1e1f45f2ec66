"""QuickGELU's programs in Triton's interpreter, by the public function: values, gradients, and how often they run.

bfloat16 is cut off, not rounded, by the interpreter when a program writes it, hence its tolerance of one unit.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clip_core.errors import ConfigError
from clip_core.kernels import quick_gelu, use_backend
from clip_core.kernels.programs.launching import LAUNCHES
from clip_core.kernels.programs.quick_gelu import BLOCK
from clip_core.layers.block import Mlp

PROGRAMS = ("activate", "activate_backward")


def formula(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def by_tanh(x: Tensor) -> Tensor:
    return x * (1 + torch.tanh(0.851 * x)) / 2


def derivative(x: Tensor) -> Tensor:
    return (1 + torch.tanh(0.851 * x)) / 2 + x * 0.851 / (2 * torch.cosh(0.851 * x) ** 2)


def values(*shape: int, seed: int = 0) -> Tensor:
    return 4 * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_program(x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    LAUNCHES.clear()
    leaf = x.detach().requires_grad_()
    with use_backend("triton"):
        out = quick_gelu(leaf)
    (found,) = torch.autograd.grad(out, leaf, gradient)  # outside: the choice was handed on
    assert [LAUNCHES[name] for name in PROGRAMS] == [int(x.numel() > 0)] * 2
    return out.detach(), found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 7, BLOCK, 2 * BLOCK + 5])
def test_values_and_gradients(dtype: torch.dtype, count: int) -> None:
    x, gradient = values(count).to(dtype), values(count, seed=1).to(dtype)
    out, found = by_program(x, gradient)
    unit = torch.finfo(dtype).eps
    exact = x.double()
    assert out.dtype == found.dtype == dtype
    for expected in (formula(exact), by_tanh(exact)):
        torch.testing.assert_close(out.double(), expected, atol=1e-7, rtol=max(unit, 5e-6))
    torch.testing.assert_close(found.double(), gradient.double() * derivative(exact), atol=2e-6, rtol=max(unit, 5e-6))


@pytest.mark.parametrize(
    "x",
    [values(3, 4, 5).transpose(0, 2), values(6, 8)[:, 1::3], values(1, 4).expand(3, 4), values(0, 3), values()],
    ids=["transposed", "sliced", "expanded", "empty", "scalar"],
)
def test_any_shape_and_strides(x: Tensor) -> None:
    x = x.float()
    for gradient in (values(*x.shape, seed=1).float(), torch.full((), 65536.0).expand(x.shape)):
        out, found = by_program(x, gradient)
        assert out.shape == found.shape == x.shape
        torch.testing.assert_close(out.double(), formula(x.double()), atol=1e-6, rtol=1e-5)
        expected = gradient.double() * derivative(x.double())
        torch.testing.assert_close(
            found.double(), expected, atol=2e-6 * gradient.abs().max().item() if len(found.flatten()) else 0, rtol=1e-5
        )


@pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")  # by numpy; the gate is 0 then
def test_far_from_zero_and_not_a_number() -> None:
    x = torch.tensor([-1e30, -500.0, -60.0, -0.0, 60.0, 500.0, 1e30, torch.nan])
    out, found = by_program(x, torch.ones(8))
    torch.testing.assert_close(out, formula(x), atol=1e-30, rtol=1e-5, equal_nan=True)
    torch.testing.assert_close(
        found, torch.tensor([0.0, 0, 0, 0.5, 1, 1, 1, torch.nan]), atol=1e-30, rtol=1e-5, equal_nan=True
    )


# opcheck's own: it reads the gradient of the copies that it makes.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_operation_keeps_the_rules_of_torch(dtype: torch.dtype) -> None:
    for x in (values(3, 5).to(dtype), values(4, 6).to(dtype).T, values(0, 2).to(dtype)):
        torch.library.opcheck(torch.ops.clip_core.quick_gelu, (x.detach().requires_grad_(),))
        torch.library.opcheck(torch.ops.clip_core.quick_gelu_backward, (x.detach(), x.detach()))


def test_compiled_as_one_graph_when_forced() -> None:
    x = values(3, 5).float().requires_grad_()

    def step(x: Tensor) -> Tensor:
        return quick_gelu(2 * x)

    results = []
    with use_backend("triton"):
        for function in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
            LAUNCHES.clear()
            out = function(x)
            results += [out, torch.autograd.grad(out.sum(), x)[0]]
            assert [LAUNCHES[name] for name in PROGRAMS] == [1, 1]
    assert torch.equal(results[0], results[2])
    assert torch.equal(results[1], results[3])


def test_in_an_mlp_under_checkpointing_without_gradients_and_under_autocast() -> None:
    torch.manual_seed(0)
    mlp = Mlp(8, 32, "quick_gelu")
    x = values(2, 3, 8).float().requires_grad_()
    expected = torch.autograd.grad(mlp(x).sum(), x)[0]
    LAUNCHES.clear()
    with use_backend("triton"):
        out = checkpoint(mlp, x, use_reentrant=False)
        found = torch.autograd.grad(out.sum(), x)[0]
        assert [LAUNCHES[name] for name in PROGRAMS] == [2, 1]
        with torch.no_grad():
            torch.testing.assert_close(mlp(x), out, atol=1e-6, rtol=1e-6)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert mlp(x).dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_a_gradient_can_be_differentiated_again() -> None:
    x = values(6).float().requires_grad_()
    seconds = []
    for function in (quick_gelu, formula):
        with use_backend("triton"):
            (first,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), x)[0])
    torch.testing.assert_close(*seconds, atol=1e-5, rtol=1e-4)


def test_float64_has_no_program() -> None:
    with use_backend("triton"), pytest.raises(ConfigError, match="not for float64"):
        nn.Sequential(Mlp(4, 8, "quick_gelu")).double()(values(2, 4))
