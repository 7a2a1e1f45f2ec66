"""Features that are hard for contrastive losses, and the losses in float64, for the tests of clip-core."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "KINDS",
    "Loss",
    "by_matrix",
    "by_terms",
    "pairs",
    "run",
    "sigmoid_by_matrix",
    "sigmoid_by_terms",
]

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
    elif kind == "equal":  # each row its own partner
        y = x.clone()
    elif kind == "identical":  # every gradient is 0
        x[:], y[:] = x[0].clone(), y[0].clone()
    elif kind == "huge":
        x[batch // 3] *= 1000
    elif kind == "zero":
        x[batch // 3], y[batch // 2] = 0, 0
    return x, y


KINDS = ["random", "aligned", "trained", "duplicates", "antipodal", "orthogonal", "equal", "identical", "huge", "zero"]


def by_matrix(x: Tensor, y: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """CLIP's loss from the matrix of logits; the bias has no effect."""
    logits = scale * x @ y.T
    return -(logits.log_softmax(1).diagonal() + logits.log_softmax(0).diagonal()).mean() / 2


def by_terms(x: Tensor, y: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """CLIP's loss row by row, exact for a loss of almost 0, too."""
    logits = scale * x @ y.T
    own = logits.diagonal()
    others = logits.masked_fill(torch.eye(len(x), dtype=torch.bool), -torch.inf)
    if len(x) == 1:
        return 0 * logits.sum()
    sums = others.logsumexp(1) - own, others.logsumexp(0) - own
    return sum((F.softplus(found, threshold=100).mean() / 2 for found in sums), torch.zeros_like(scale))


def sigmoid_by_matrix(x: Tensor, y: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """SigLIP's loss from the matrix of logits."""
    labels = 2 * torch.eye(len(x), dtype=x.dtype, device=x.device) - 1
    return -F.logsigmoid(labels * (scale * x @ y.T + bias)).sum() / len(x)


def sigmoid_by_terms(x: Tensor, y: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """SigLIP's loss with the terms of pairs apart."""
    logits = scale * x @ y.T + bias
    return (F.softplus(logits, threshold=100).sum() - logits.diagonal().sum()) / len(x)


def run(loss: Loss, x: Tensor, y: Tensor, scale: float, bias: float | None, dtype: torch.dtype) -> list[Tensor]:
    """Loss and gradients of both features, the scale and the bias, in float64."""
    inputs = [value.detach().to(dtype, copy=True).requires_grad_() for value in (x, y)]
    inputs.append(torch.tensor(scale, dtype=dtype, requires_grad=True))
    if bias is not None:
        inputs.append(torch.tensor(bias, dtype=dtype, requires_grad=True))
    value = loss(*inputs)
    torch.autograd.backward(value)
    return [item.detach().double() for item in (value, *(given.grad for given in inputs if given.grad is not None))]
