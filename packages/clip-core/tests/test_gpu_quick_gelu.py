"""OpenAI's activation on a CUDA device, both directions. Chosen with `-m gpu` (tools/gpu.py); see test_gpu_losses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clip_core import kernels
from on_device import CUDA, DEVICE, REHEARSAL, error, poisoned, repeated

pytestmark = pytest.mark.gpu

only_cuda = pytest.mark.skipif(not CUDA, reason="no CUDA device")
SHAPES = [(1,), (3, 7), (50, 129, 96)] if CUDA else [(1,), (3, 7)]
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def eager(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def both(function, x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.detach().requires_grad_()
    out = function(leaf)
    return out.detach(), torch.autograd.grad(out, leaf, gradient)[0]


def drawn(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple((4 * torch.randn(shape, generator=generator)).to(DEVICE, dtype) for _ in range(2))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_errors_are_at_most_those_of_torch(shape, dtype) -> None:
    x, gradient = drawn(shape, dtype)
    with kernels.use_backend("triton"), poisoned():
        found = both(kernels.quick_gelu, x, gradient)
    exact = both(eager, x.double(), gradient.double())
    for ours, theirs, right in zip(found, both(eager, x, gradient), exact, strict=True):
        assert ours.dtype == dtype
        unit = torch.finfo(dtype).eps / 2 * right.norm().item()
        allowed = 1.2 * error(theirs, right) + (unit if x.numel() < 1000 or dtype == torch.float32 else 0)
        assert error(ours, right) <= allowed * (8 if REHEARSAL else 1)


@pytest.mark.filterwarnings("ignore:.*encountered")  # numpy's, in the interpreter
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_ends_of_the_range(dtype) -> None:
    x = torch.tensor([-1e4, -200.0, -60.0, -1e-6, 0.0, 1e-6, 60.0, 200.0, 1e4], device=DEVICE).to(dtype)
    with kernels.use_backend("triton"):
        out, slope = both(kernels.quick_gelu, x, torch.ones_like(x))
    right, right_slope = both(eager, x.double(), torch.ones_like(x).double())
    torch.testing.assert_close(out.double(), right, atol=1e-6, rtol=2**-7)
    torch.testing.assert_close(slope.double(), right_slope, atol=1e-6, rtol=2**-7)


def test_other_strides_and_an_expanded_gradient() -> None:
    x, _ = drawn((12, 40), torch.bfloat16)
    with kernels.use_backend("triton"):
        right = both(kernels.quick_gelu, x, torch.ones_like(x))
        found = both(kernels.quick_gelu, x.T.contiguous().T, x.new_ones(()).expand_as(x))
    for ours, theirs in zip(found, right, strict=True):
        assert torch.equal(ours, theirs)


def test_the_same_bits_twice() -> None:
    x, gradient = drawn((30, 77), torch.bfloat16)
    with kernels.use_backend("triton"):
        repeated(lambda: both(kernels.quick_gelu, x, gradient))


def test_small_run() -> None:
    """What compute-sanitizer looks at (tools/gpu.py sanitize)."""
    test_errors_are_at_most_those_of_torch((3, 7), torch.bfloat16)


@only_cuda
def test_only_the_input_is_kept() -> None:
    x = torch.randn(2**24, device=DEVICE, dtype=torch.bfloat16, requires_grad=True)
    with kernels.use_backend("triton"):
        kernels.quick_gelu(x[:128])
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        out = kernels.quick_gelu(x)
        assert torch.cuda.memory_allocated() - before <= out.nbytes + 2**20


@only_cuda
def test_offsets_beyond_two_to_the_31() -> None:
    x = torch.empty(2**31 + 4096, device=DEVICE, dtype=torch.bfloat16).normal_()
    with kernels.use_backend("triton"), torch.no_grad():
        assert torch.equal(kernels.quick_gelu(x)[-4096:], kernels.quick_gelu(x[-4096:].clone()))
