"""What the tests that need a CUDA device share: exact and low-precision losses, and how errors are compared.

Where there is no such device, and TRITON_INTERPRET=1, the same tests run small on the CPU, so that none of them meets a
GPU for the first time with a slip in it. Shapes: b rows (images), B columns (texts), D features.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from loss_cases import by_matrix, sigmoid_by_matrix

__all__ = [
    "CUDA",
    "DEVICE",
    "FEATURES",
    "REHEARSAL",
    "Result",
    "assert_close_enough",
    "error",
    "exact_loss",
    "features",
    "low_precision_loss",
    "poisoned",
    "repeated",
    "run",
]

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
REHEARSAL = not CUDA and os.environ.get("TRITON_INTERPRET") == "1"
"""Whether these tests run in Triton's interpreter, whose rounding to bfloat16 is not a GPU's."""

FEATURES = ("random", "trained", "orthogonal", "antipodal", "perfect", "identical", "duplicates", "huge", "zeros")


class Result(NamedTuple):
    """A loss and its gradients."""

    loss: Tensor
    images: Tensor
    """(b, D)"""
    texts: Tensor
    """(B, D)"""
    scale: Tensor
    bias: Tensor


def features(kind: str, pairs: int, dim: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two float32 (B, D) on the device, rows of length 1 but where the kind says otherwise; see `FEATURES`."""
    generator = torch.Generator().manual_seed(seed)

    def drawn() -> Tensor:
        return F.normalize(torch.randn(pairs, dim, generator=generator), dim=-1).to(DEVICE)

    images, texts = drawn(), drawn()
    if kind == "trained":  # cosines of pairs near 0.4, others near 0.1
        common = F.normalize(drawn()[:1] + drawn()[:1], dim=-1)
        images = F.normalize(0.4 * common + images, dim=-1)
        texts = F.normalize(0.4 * common + texts + 0.4 * images, dim=-1)
    elif kind == "orthogonal":
        images, texts = images.clone(), texts.clone()
        images[:, ::2], texts[:, 1::2] = 0, 0
    elif kind == "antipodal":
        texts = -images[:1].expand(pairs, dim).contiguous()
        images = images[:1].expand(pairs, dim).contiguous()
    elif kind == "perfect":
        texts = images.clone()
    elif kind == "identical":
        images, texts = (side[:1].expand(pairs, dim).contiguous() for side in (images, texts))
    elif kind == "duplicates":
        half = (pairs + 1) // 2
        images, texts = (side[:half].repeat(2, 1)[:pairs] for side in (images, F.normalize(texts + images, dim=-1)))
    elif kind == "huge":
        images[pairs // 2] *= 30
    elif kind == "zeros":
        images[:: max(1, pairs // 3)] = 0
        texts[-1] = 0
    return images, texts


def run(function: Callable[..., Tensor], images: Tensor, texts: Tensor, *scalars: float, upstream: float = 1) -> Result:
    """`function(images, texts, scale[, bias])` and its gradients for the loss times `upstream`."""
    leaves = [side.detach().clone().requires_grad_() for side in (images, texts)]
    values = [torch.tensor(value, device=images.device, requires_grad=True) for value in scalars]
    loss = function(*leaves, *values)
    torch.autograd.backward(loss, torch.tensor(upstream, dtype=loss.dtype, device=loss.device))
    image, text, scale, *bias = (
        leaf.grad if leaf.grad is not None else torch.zeros_like(leaf) for leaf in (*leaves, *values)
    )
    return Result(loss.detach(), image, text, scale, bias[0] if bias else torch.zeros_like(scale))


def exact_loss(name: str, images: Tensor, texts: Tensor, *scalars: float, upstream: float = 1) -> Result:
    """The loss `name` ("clip_loss", "siglip_loss") in float64 with the whole matrix of logits, by autograd."""
    exact = by_matrix if name == "clip_loss" else sigmoid_by_matrix

    def doubled(x: Tensor, y: Tensor, *values: Tensor) -> Tensor:
        return exact(x.double(), y.double(), *(value.double() for value in values))

    return run(doubled, images.double(), texts.double(), *scalars, upstream=upstream)


def low_precision_loss(
    name: str, images: Tensor, texts: Tensor, *scalars: float, dtype: torch.dtype, upstream: float = 1
) -> Result:
    """The same as torch would do it for matrix products in `dtype` with float32 logits.

    Operands are rounded to `dtype`: the features, and the gradient of the logits, this times a power of two that keeps
    it in the range of float16. Gradients of features have the dtype of the features.
    """
    x, y = (side.to(dtype).float() for side in (images, texts))
    count, scale = len(x), torch.tensor(scalars[0], device=x.device)
    cosines = x @ y.T
    eye = torch.eye(count, device=x.device)
    if name == "clip_loss":
        logits, pairs = scale * cosines, torch.arange(count, device=x.device)
        loss = (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2
        weights = (logits.softmax(1) + logits.softmax(0) - 2 * eye) / (2 * count)
    else:
        logits = scale * cosines + scalars[1]
        loss = -F.logsigmoid((2 * eye - 1) * logits).sum() / count
        weights = (logits.sigmoid() - eye) / count
    weights = weights * upstream
    factor = torch.exp2(-weights.abs().amax().clamp(min=1e-37).log2().ceil())
    rounded = (weights * factor).to(dtype).float() / factor * scale
    found = Result(loss, rounded @ y, rounded.T @ x, (weights * cosines).sum(), weights.sum())
    if name == "clip_loss":
        found = found._replace(bias=torch.zeros_like(found.bias))
    return found._replace(images=found.images.to(images.dtype), texts=found.texts.to(texts.dtype))


def error(found: Tensor, exact: Tensor) -> float:
    """Euclidean norm of the difference; infinite for a value that is not finite where the exact one is."""
    difference = (found.double() - exact.double()).norm().item()
    return difference if difference == difference else float("inf")


def assert_close_enough(
    found: Result,
    peer: Result,
    exact: Result,
    dtype: torch.dtype,
    largest: float,
    terms: float,
    *,
    factor: float = 1.2,
) -> None:
    """Each error of `found` is at most `factor` times that of `peer`.

    Beside it a unit of the last place of a float32 logit is allowed, none of which is above `largest`, also of what a
    gradient is the sum of, `terms`: where rows are equal a plain product may be exact by chance. Below 1,024 rows the
    two errors are two draws from few numbers; there it is three times the peer's error and one unit of `dtype`.
    """
    few = len(found.images) < 1024
    factor = 8 if REHEARSAL and dtype != torch.float32 else 3 if few else factor
    unit = torch.finfo(dtype).eps if few else 0.0
    least = 2**-23 * max(4.0, largest)
    for name, ours, theirs, right in zip(Result._fields, found, peer, exact, strict=True):
        size = right.norm().item() + 1e-30
        allowed = factor * error(theirs, right) + max(least, unit if name in ("images", "texts") else 0.0) * size
        if name in ("scale", "bias"):  # sums of both signs: they lose what their terms lose
            allowed += (2 * least + unit) * (exact.images.norm().item() + exact.loss.abs().item())
        elif name != "loss":
            allowed += least * terms
        assert error(ours, right) <= allowed, (
            f"{name}: error {error(ours, right):.3g} of {size:.3g}, the peer's {error(theirs, right):.3g}"
        )


@contextmanager
def poisoned() -> Iterator[None]:
    """Inside, memory that torch hands out unwritten holds NaN (or the largest integer)."""
    before = (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of operations without a deterministic form, which is not the point here
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            assert torch.empty(3, device=DEVICE).isnan().all(), "fill_uninitialized_memory is off"
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def repeated(call: Callable[[], tuple[Tensor, ...]], times: int = 2) -> None:
    """Assert that `call` gives the same bits each time."""
    first = [value.clone() for value in call()]
    for _ in range(times - 1):
        for one, other in zip(first, call(), strict=True):
            assert torch.equal(one, other), f"differs by {error(one, other):.3g} from run to run"
