"""Attention in bench_gpu: ours beside each of torch's backends by name, at the shapes of CLIP's towers.

Shapes: B batch, S sequence, H heads, C channels of a head. Everything starts at packed (B, S, 3, H, C) and ends at
(B, S, H * C); training ends at the packed gradient, which torch makes by concatenating three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from gpu_timing import Case, Clock, Row, reason
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from clip_core import kernels

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
_MOST_MATH = 2**31  # logits; above, the backend that writes them out only costs time


class Shape(NamedTuple):
    """One tower's attention."""

    name: str
    length: int
    heads: int
    channels: int
    causal: bool
    dtype: torch.dtype = torch.bfloat16


TEN = (
    Shape("B/32 image", 50, 12, 64, False),
    Shape("text 512", 77, 8, 64, True),
    Shape("text 768", 77, 12, 64, True),
    Shape("text 1024", 77, 16, 64, True),
    Shape("B/16 image", 197, 12, 64, False),
    Shape("L/14 image", 257, 16, 64, False),
    Shape("H/14 image", 257, 16, 80, False),
    Shape("g/14 image", 257, 16, 88, False),
    Shape("bigG/14 image", 257, 16, 104, False),
    Shape("L/14-336 image", 577, 16, 64, False),
)
FURTHER = (
    Shape("B/32 image, float16", 50, 12, 64, False, torch.float16),
    Shape("text 512, float16", 77, 8, 64, True, torch.float16),
    Shape("B/32-256 image", 65, 12, 64, False),
    Shape("SigLIP text B", 64, 12, 64, False),
    Shape("SigLIP text SO400M", 64, 16, 72, False),
)


def by_torch(packed: Tensor, causal: bool, mask: Tensor | None = None) -> Tensor:
    """(B, S, 3, H, C) -> (B, S, H * C) by whichever backend is allowed."""
    query, key, value = (part.transpose(1, 2) for part in packed.unbind(2))
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal and mask is None)
    return mixed.transpose(1, 2).flatten(2)


def others(shape: Shape, device: torch.device) -> dict[str, Callable[[Tensor], Tensor]]:
    """Every other way by its name; the first ones are torch's backends."""

    def forced(backend: SDPBackend) -> Callable[[Tensor], Tensor]:
        def call(packed: Tensor) -> Tensor:
            with sdpa_kernel(backend):
                return by_torch(packed, shape.causal)

        return call

    ways = {name: forced(backend) for name, backend in BACKENDS.items()}
    ways["default"] = lambda packed: by_torch(packed, shape.causal)
    if shape.causal:  # OpenCLIP's text tower hands over a tensor
        mask = torch.full((shape.length, shape.length), float("-inf"), device=device, dtype=shape.dtype).triu(1)
        ways["mask tensor"] = lambda packed: by_torch(packed, shape.causal, mask)
    return ways


def both_times(clock: Clock, call: Callable[[Tensor], Tensor], packed: Tensor) -> dict[str, float]:
    """Milliseconds of the forward pass alone, and with the backward pass."""
    leaf = packed.detach().requires_grad_()
    gradient = torch.randn_like(call(packed.detach()))
    with torch.no_grad():
        forward = clock.milliseconds(lambda: call(packed), seconds=0.1)
    training = clock.milliseconds(lambda: torch.autograd.grad(call(leaf), leaf, gradient), seconds=0.2)
    return {"forward": forward, "training": training}


def ours(clock: Clock, call: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`call` with Triton's programs; with torch where this is a rehearsal."""

    def forced(packed: Tensor) -> Tensor:
        with kernels.use_backend("torch" if clock.rehearsal else "triton"):
            return call(packed).flatten(-2)

    return forced


def compare(clock: Clock, ways: dict[str, Callable[[Tensor], Tensor]], mine: Callable[[], dict[str, float]]) -> Row:
    """Times of all, and how many times faster ours is than the fastest backend of torch, by direction."""
    times: dict[str, dict[str, float]] = {}
    missing: dict[str, str] = {}
    for name, way in ways.items():
        try:
            times[name] = way()
        except Exception as error:  # a backend that does not take this shape
            missing[name] = reason(error)
    row: Row = {"times": times, "missing": missing}
    for direction in ("forward", "training"):
        backends = {name: times[name][direction] for name in BACKENDS if name in times}
        if backends:
            row[f"best_{direction}"] = min(backends, key=backends.__getitem__)
    try:
        times["ours"] = mine()
    except Exception as error:
        missing["ours"] = reason(error)
        return row
    for direction in ("forward", "training"):
        if f"best_{direction}" in row:
            row[f"ratio_{direction}"] = times[row[f"best_{direction}"]][direction] / times["ours"][direction]
        if "mask tensor" in times:
            row[f"ratio_mask_{direction}"] = times["mask tensor"][direction] / times["ours"][direction]
    return row


def cases(clock: Clock) -> Iterator[Case]:
    batch = 2 if clock.rehearsal else 1024

    def measure(shape: Shape) -> Row:
        if clock.rehearsal:
            shape = shape._replace(length=min(shape.length, 20), heads=1)
        generator = torch.Generator(clock.device).manual_seed(0)
        size = (batch, shape.length, 3, shape.heads, shape.channels)
        packed = torch.randn(size, generator=generator, device=clock.device).to(shape.dtype)
        ways = others(shape, clock.device)
        if batch * shape.heads * shape.length**2 > _MOST_MATH:
            del ways["math"]
        row = compare(
            clock,
            {name: lambda way=way: both_times(clock, way, packed) for name, way in ways.items()},
            lambda: both_times(clock, ours(clock, lambda leaf: kernels.attention(leaf, causal=shape.causal)), packed),
        )
        return {**of(shape), "batch": batch, **row}

    def of(shape: Shape) -> Row:
        return {
            "operation": "attention",
            "dtype": str(shape.dtype).removeprefix("torch."),
            "length": shape.length,
            "heads": shape.heads,
            "channels": shape.channels,
            "causal": shape.causal,
        }

    def pointwise(dtype: torch.dtype) -> Row:
        size = (batch * 50, 3072) if not clock.rehearsal else (4, 8)
        x = torch.randn(size, device=clock.device).to(dtype)
        ways = {"eager": lambda leaf: leaf * torch.sigmoid(1.702 * leaf)}
        times = {name: both_times(clock, way, x) for name, way in ways.items()}
        with kernels.use_backend("torch" if clock.rehearsal else "triton"):
            times["ours"] = both_times(clock, kernels.quick_gelu, x)
        ratios = {f"ratio_{way}": times["eager"][way] / times["ours"][way] for way in ("forward", "training")}
        return {"times": times, **ratios}

    for shape in TEN[:4]:
        yield Case(shape.name, lambda shape=shape: measure(shape), of(shape))
    for dtype in (torch.bfloat16, torch.float16):
        name = str(dtype).removeprefix("torch.")
        of_pointwise = {"operation": "quick_gelu", "dtype": name}
        yield Case(f"quick_gelu {name}", lambda dtype=dtype: pointwise(dtype), of_pointwise)
    for shape in (*TEN[4:], *FURTHER):
        yield Case(shape.name, lambda shape=shape: measure(shape), of(shape))
