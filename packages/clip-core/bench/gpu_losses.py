"""The contrastive losses in bench_gpu: time, peak of memory and rate, beside OpenCLIP's, eager and compiled.

Features are float32 under autocast to bfloat16, as a training step with mixed precision hands them over. Shapes: B
pairs, D features. The peer is open_clip's own module, or where that is not installed the same operations, written here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from gpu_timing import Case, Clock, Row
from torch import Tensor

from clip_core import kernels

UNITS = {"clip_loss": 4, "siglip_loss": 3}
"""Products of B * B * D multiplications and additions that a loss and its gradients take at least."""
LARGEST = {"clip_loss": 17, "siglip_loss": 19}
"""Bytes per logit at the peak of the peer: what is larger than the device is not tried."""


def plain_clip(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """The cross-entropy of each side over the other, with both matrices of logits, as OpenCLIP has them."""
    right = torch.arange(len(images), device=images.device)
    per_image, per_text = (scale * one @ other.T for one, other in ((images, texts), (texts, images)))
    return (F.cross_entropy(per_image, right) + F.cross_entropy(per_text, right)) / 2


def plain_siglip(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """The sigmoid loss over the whole matrix of logits."""
    logits = scale * images @ texts.T + bias
    signs = 2 * torch.eye(len(images), device=images.device, dtype=logits.dtype) - 1
    return -F.logsigmoid(signs * logits).sum() / len(images)


def has_open_clip(clock: Clock) -> bool:
    return not clock.rehearsal and importlib.util.find_spec("open_clip") is not None


def peer(clock: Clock, name: str) -> Callable[..., Tensor]:
    if not has_open_clip(clock):
        return {"clip_loss": plain_clip, "siglip_loss": plain_siglip}[name]
    from open_clip.loss import ClipLoss, SigLipLoss

    module: Callable[..., Tensor] = {"clip_loss": ClipLoss, "siglip_loss": SigLipLoss}[name]()
    return module


def sizes(rehearsal: bool) -> list[tuple[int, int]]:
    if rehearsal:
        return [(64, 16)]
    return [(count, dim) for count in (32768, 8192, 65536, 131072) for dim in (512, 768, 1024)]


def measure(clock: Clock, name: str, side: str, count: int, dim: int) -> Row:
    """One side of one loss at one size: forward, forward and backward, and its peak above features and scalars."""
    row: Row = {"peer_is": None}
    if side != "ours":
        row["peer_is"] = "open_clip" if has_open_clip(clock) else "the same operations, written here"
        bytes_needed = LARGEST[name] * count**2
        if clock.cuda and bytes_needed > 0.95 * torch.cuda.get_device_properties(clock.device).total_memory:
            return {**row, "error": f"out of memory: it takes about {bytes_needed / 2**30:.0f} GiB"}
    generator = torch.Generator(clock.device).manual_seed(0)

    def drawn() -> Tensor:
        return F.normalize(torch.randn(count, dim, generator=generator, device=clock.device), dim=-1)

    images, texts = drawn(), drawn()
    texts = F.normalize(texts + images, dim=-1)
    values = [torch.tensor(value, device=clock.device, requires_grad=True) for value in (20.0, -10.0)]
    leaves = (images.requires_grad_(), texts.requires_grad_(), *(values[:1] if name == "clip_loss" else values))
    del images, texts
    function = getattr(kernels, name) if side == "ours" else peer(clock, name)

    def forward(*given: Tensor) -> Tensor:
        with torch.autocast(clock.device.type, torch.bfloat16):
            return function(*given)

    if side == "compiled":
        torch._dynamo.reset()
        forward = torch.compile(forward, dynamic=False)

    def training() -> Tensor:
        loss = forward(*leaves)
        torch.autograd.grad(loss, leaves)
        return loss.detach()

    with kernels.use_backend("torch" if clock.rehearsal else "triton"):
        loss = training().item()
        peak = clock.peak_mib(training)
        took = clock.milliseconds(training, seconds=0.5)
        with torch.no_grad():
            alone = clock.milliseconds(lambda: forward(*leaves), seconds=0.2) if side == "ours" else None
    flop = 2 * UNITS[name] * count**2 * dim
    return {**row, "ms": took, "forward_ms": alone, "peak_mib": peak, "tflop_per_s": flop / took / 1e9, "value": loss}


def cases(clock: Clock) -> Iterator[Case]:
    def case(name: str, side: str, count: int, dim: int) -> Case:
        of: Row = {"loss": name, "side": side, "pairs": count, "features": dim}
        return Case(f"{name} {count} x {dim} {side}", lambda: measure(clock, name, side, count, dim), of)

    for count, dim in sizes(clock.rehearsal):
        for name in UNITS:
            yield case(name, "ours", count, dim)
            yield case(name, "eager", count, dim)
    for count, dim in sizes(clock.rehearsal):
        if not clock.rehearsal:  # compiling takes its seconds, so this comes last
            yield case("clip_loss", "compiled", count, dim)
