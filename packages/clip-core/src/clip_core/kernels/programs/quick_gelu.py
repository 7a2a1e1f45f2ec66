"""QuickGELU and its derivative, elementwise: each reads its tensors once and writes one.

Arithmetic is float32 whatever the dtype, and is rounded once. Shape: N elements.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from clip_core.kernels.programs.launching import launch

__all__ = ["BLOCK", "WARPS", "activate", "activate_backward", "quick_gelu_backward", "quick_gelu_forward"]

BLOCK = 2048
"""Elements of one program: 16 bytes of half precision for each of 128 threads, twice."""
WARPS = 4


def quick_gelu_forward(x: Tensor) -> Tensor:
    """The activation of `x`: contiguous, of the shape and dtype of `x`, which is float16, bfloat16 or float32."""
    x = x.contiguous()
    out = torch.empty_like(x)
    launch(activate, _grid(x), x, out, x.numel(), BLOCK=BLOCK, num_warps=WARPS)
    return out


def quick_gelu_backward(gradient: Tensor, x: Tensor) -> Tensor:
    """The gradient of `x` from that of the result, with any strides; contiguous, of the shape and dtype of `x`."""
    x, gradient = x.contiguous(), gradient.contiguous()
    out = torch.empty_like(x)
    launch(activate_backward, _grid(x), gradient, x, out, x.numel(), BLOCK=BLOCK, num_warps=WARPS)
    return out


def _grid(x: Tensor) -> tuple[int]:
    return (triton.cdiv(x.numel(), BLOCK),)


@triton.jit
def _gates(logits):
    # exp overflows to infinity for very negative logits, and the gate is then 0, as it should be.
    return 1.0 / (1.0 + tl.exp(-logits))


@triton.jit
def activate(x, out, count, BLOCK: tl.constexpr):
    """Write x * sigmoid(1.702 x) to `out`; both (N,), N = count."""
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = places < count
    values = tl.load(x + places, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + places, (values * _gates(1.702 * values)).to(out.dtype.element_ty), mask=inside)


@triton.jit
def activate_backward(gradient, x, out, count, BLOCK: tl.constexpr):
    """Write gradient * derivative to `out`; all (N,), N = count."""
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = places < count
    logits = 1.702 * tl.load(x + places, mask=inside, other=0.0).to(tl.float32)
    upstream = tl.load(gradient + places, mask=inside, other=0.0).to(tl.float32)
    gates = _gates(logits)
    derivative = gates * (1.0 + logits * (1.0 - gates))
    tl.store(out + places, (upstream * derivative).to(out.dtype.element_ty), mask=inside)
