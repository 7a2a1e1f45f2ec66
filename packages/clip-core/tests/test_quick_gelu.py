"""QuickGELU: the bits of the formula, exact derivatives of every order, one tensor kept; and its Triton programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from clip_core.kernels import quick_gelu, use_backend
from clip_core.layers.block import QuickGelu
from interpreted import run_interpreted

INTERPRETED = Path(__file__).parent / "interpreted/test_quick_gelu.py"


def formula(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def by_tanh(x: Tensor) -> Tensor:
    return x * (1 + torch.tanh(0.851 * x)) / 2


def derivative(x: Tensor) -> Tensor:
    """In float64, written with other functions than ours."""
    x = x.double()
    return (1 + torch.tanh(0.851 * x)) / 2 + x * 0.851 / (2 * torch.cosh((0.851 * x).clamp(-300, 300)) ** 2)


def values(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return (4 * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).to(dtype)


DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_result_has_the_bits_of_the_formula(dtype: torch.dtype) -> None:
    x, eps = values(7, 33, dtype=dtype), torch.finfo(dtype).eps
    assert torch.equal(quick_gelu(x), formula(x))
    assert torch.equal(QuickGelu()(x.requires_grad_()), formula(x))
    torch.testing.assert_close(quick_gelu(x).double(), by_tanh(x.double()), atol=4 * eps, rtol=4 * eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_is_the_derivative_and_no_worse_than_autograds(dtype: torch.dtype) -> None:
    x, gradient = values(5, 1000, dtype=dtype), values(5, 1000, dtype=dtype).flip(1)
    exact = gradient.double() * derivative(x)
    errors = []
    for function in (quick_gelu, formula):
        leaf = x.clone().requires_grad_()
        (found,) = torch.autograd.grad(function(leaf), leaf, gradient)
        assert found.dtype == dtype
        errors.append((found.double() - exact).norm().item())
    assert errors[0] <= 1.2 * errors[1]
    assert errors[0] <= 2 * torch.finfo(dtype).eps * exact.norm().item()


def test_far_from_zero_nothing_is_lost() -> None:
    x = torch.tensor([-1e30, -500.0, -88.0, -0.0, 88.0, 500.0, 1e30], requires_grad=True)
    (gradient,) = torch.autograd.grad(quick_gelu(x).sum(), x)
    torch.testing.assert_close(gradient.double(), derivative(x), atol=1e-30, rtol=1e-6)


def test_one_tensor_is_kept_for_the_backward_pass() -> None:
    kept: list[Tensor] = []
    x = values(3, 5).requires_grad_()
    with saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        quick_gelu(x)
    assert [tensor.data_ptr() for tensor in kept] == [x.data_ptr()]


@pytest.mark.parametrize(
    "x",
    [values(3, 4, 5).transpose(0, 2), values(6, 8)[:, 1::3], values(1, 4).expand(3, 4), values(0, 3), values()],
    ids=["transposed", "sliced", "expanded", "empty", "scalar"],
)
def test_any_shape_and_strides(x: Tensor) -> None:
    x = x.detach().requires_grad_()
    out = quick_gelu(x)
    assert torch.equal(out, formula(x))
    (gradient,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(gradient, derivative(x).detach())


def test_it_can_be_differentiated_as_often_as_the_formula() -> None:
    x = values(6).requires_grad_()
    assert torch.autograd.gradcheck(quick_gelu, (x,))
    assert torch.autograd.gradgradcheck(quick_gelu, (x,))
    for transform in (
        lambda function: torch.func.vmap(torch.func.grad(function))(x),
        lambda function: torch.func.vmap(torch.func.grad(torch.func.grad(function)))(x),
        lambda function: torch.func.jacrev(function)(x),
    ):
        torch.testing.assert_close(transform(quick_gelu), transform(formula))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # torch's own, in forward mode
def test_forward_mode_is_that_of_the_formula() -> None:
    x = values(6).requires_grad_()
    for function in (quick_gelu, formula):
        assert torch.autograd.gradcheck(function, (x,), check_forward_ad=True, check_backward_ad=False)
    tangents = [torch.func.jvp(function, (x.detach(),), (values(6),))[1] for function in (quick_gelu, formula)]
    torch.testing.assert_close(*tangents)


def operations(program: torch.export.ExportedProgram) -> set[str]:
    return {str(node.target) for node in program.graph.nodes if node.op == "call_function"}


def test_compilers_and_exporters_see_the_formula() -> None:
    x = values(3, 5, dtype=torch.float32).requires_grad_()
    compiled = torch.compile(quick_gelu, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), formula(x))
    (gradient,) = torch.autograd.grad(compiled(x).sum(), x)
    torch.testing.assert_close(gradient.double(), derivative(x).detach(), atol=1e-6, rtol=1e-6)
    program = torch.export.export(QuickGelu().eval(), (x.detach(),))
    assert operations(program) == {"aten.mul.Tensor", "aten.sigmoid.default"}
    assert operations(torch.export.export(QuickGelu().train(), (x,))) == operations(program)


def test_under_autocast_the_dtype_stays() -> None:
    x = values(3, 5, dtype=torch.float32).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = quick_gelu(x)
        linear = quick_gelu(torch.nn.functional.linear(x, values(4, 5, dtype=torch.float32)))
    assert (out.dtype, linear.dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(out, formula(x))


@pytest.mark.parametrize("call", [quick_gelu, QuickGelu()])
def test_torch_can_be_forced(call: Callable[[Tensor], Tensor]) -> None:
    x = values(4, dtype=torch.bfloat16)
    with use_backend("torch"):
        assert torch.equal(call(x), formula(x))


def test_the_programs_in_the_interpreter() -> None:
    pytest.importorskip("triton", minversion="3.6")
    run_interpreted(INTERPRETED)


def test_a_wrong_sign_in_the_derivative_is_found(tmp_path: Path) -> None:
    pytest.importorskip("triton", minversion="3.6")
    right, wrong = "gates * (1.0 + logits * (1.0 - gates))", "gates * (1.0 - logits * (1.0 - gates))"
    plant = ("kernels/programs/quick_gelu.py", right, wrong)
    run_interpreted(INTERPRETED, "-k", "test_values_and_gradients", plant=plant, folder=tmp_path)


@pytest.mark.aot
@pytest.mark.parametrize("architecture", [80, 90, 100])
def test_the_programs_compile_without_spills(architecture: int) -> None:
    pytest.importorskip("triton", minversion="3.6")
    from ahead_of_time import compile_for
    from clip_core.kernels.programs import quick_gelu as programs

    for program, names in ((programs.activate, ["x", "out"]), (programs.activate_backward, ["gradient", "x", "out"])):
        made = compile_for(
            architecture,
            program,
            {**dict.fromkeys(names, "*bf16"), "count": "i32"},
            {"BLOCK": programs.BLOCK},
            aligned=(*names, "count"),
            num_warps=programs.WARPS,
        )
        assert (made.stack, made.shared) == (0, 0)
        assert made.registers <= 64  # so that a multiprocessor holds all the warps it can
        # Every load and store is of 16 bytes.
        assert made.count(r"LDG\.E\.128") == made.count("LDG") == 2 * (len(names) - 1)
        assert made.count(r"STG\.E\.128") == made.count("STG") == 2
