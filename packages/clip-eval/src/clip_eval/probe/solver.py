"""Logistic regression on features, solved to its optimum: multinomial for one label per image, one-vs-rest for several.

The problem is convex, so there is one answer, and no learning rate, number of epochs or batch order has a part in it:

    mean over the images of cross-entropy(W x + b, y)  +  decay / 2 * |W|^2        (the bias is not decayed)

which is scikit-learn's `LogisticRegression(C=1 / (decay * N))` from three classes on. With two classes scikit-learn
keeps one weight vector for both, which makes its `C` stand for twice the decay.

The method is L-BFGS. Features are centred and turned into their principal axes first (neither changes the optimum),
where the Hessian is nearly diagonal; its diagonal, kept up to date, is where each step starts from, which saves most of
the iterations of small decays. Axes without variance are dropped, so a few shots cost little. Memory holds the features
once and three arrays of (N, C).

Shapes: N images, D features, R of them with variance, C classes.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_core.errors import ConfigError, DataError

__all__ = ["Probe", "ProbeProblem"]

_BLOCK = 2**22
"""Entries of (rows, C) that are worked on at once."""
_STEPS = 5000
_MEMORY = 20
_TRIALS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A fitted linear classifier."""

    weight: Tensor
    """float64 (C, D), on the CPU."""
    bias: Tensor
    """float64 (C,); of a multinomial probe the mean is 0."""
    decay: float
    loss: float
    """Value of the objective, decay included."""
    steps: int
    """Iterations; each passes twice over the features."""
    converged: bool

    def scores(self, features: Tensor) -> Tensor:
        """Logits, float64 (N, C), of features (N, D)."""
        return features.double() @ self.weight.T + self.bias


@dataclass(frozen=True, slots=True)
class _Look:
    """What one pass over the logits tells."""

    errors: Tensor
    """(N, C): derivatives of N times the loss by the logits."""
    curvature: Tensor
    """(C,): mean of p (1 - p), the scale of the second derivatives."""
    loss: float
    slope: float
    """Derivative of the loss along the direction."""
    bend: float
    """Second derivative."""


class ProbeProblem:
    """One set of features and targets, prepared once for fits with several decays."""

    def __init__(self, features: Tensor, targets: Tensor, classes: int, *, device: torch.device | str = "cpu") -> None:
        """Prepares a fit.

        Args:
            features: (N, D), finite.
            targets: int64 (N,) labels, or bool (N, C) for several labels per image.
            classes: C, each of which occurs (for several labels: occurs, and is absent somewhere).
            device: where to compute, in float64 up to 2**28 numbers of features and in float32 beyond.

        Raises:
            ConfigError: a class that does not occur has its optimum at infinity.
            DataError: a feature is not finite.
        """
        if not features.isfinite().all():
            raise DataError("The features hold NaN or infinity; a probe of them means nothing.")
        self.several = targets.ndim == 2
        counts = targets.double().sum(0) if self.several else torch.bincount(targets, minlength=classes).double()
        empty = (counts == 0) | (counts == len(targets)) if self.several else counts == 0
        if len(counts) != classes or bool(empty.any()):
            raise ConfigError(
                f"Of {classes} classes {int(empty.sum())} have no example, or nothing but examples, first class "
                f"{int(empty.nonzero()[0]) if bool(empty.any()) else classes}. Leave them out of the fit."
            )
        self.classes = classes
        dtype = torch.float64 if features.numel() <= 2**28 else torch.float32
        given = features.to(device, dtype)
        self.targets = targets.to(device)
        self.mean = given.mean(dim=0)
        self.axes, self.variance = _principal_axes(given - self.mean)
        # Features that are all equal have none, and any decay serves them.
        self.spread = float(self.variance.sum()) or 1.0
        turned = (given - self.mean) @ self.axes
        # The bias is the weight of a column of ones.
        self.features = torch.cat([turned, turned.new_ones(len(turned), 1)], dim=1)

    def fit(self, decay: float, *, start: Probe | None = None, tolerance: float = 1e-9) -> Probe:
        """The optimum for one decay above 0; `start`, a solution for another decay, saves steps.

        tolerance: stop when a step promises less than this, in nats per image. Raises `ConfigError` for a decay of 0.
        """
        if not (decay > 0 and math.isfinite(decay)):
            raise ConfigError(f"decay is {decay}; allowed: above 0, since without it the optimum may be at infinity.")
        width = self.features.shape[1]
        weights = self._from(start) if start is not None else self.features.new_zeros(width, self.classes)
        decays = self.features.new_full((width, 1), decay)
        decays[-1] = 0
        logits = self.features @ weights
        now = self._look(logits, weights, decays)
        memory: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=_MEMORY)
        converged, steps = False, 0
        gradient = self._gradient(now, weights, decays)
        while steps < _STEPS:
            steps += 1
            direction = self._direction(gradient, now.curvature, decays, memory)
            promise = -float((gradient * direction).sum())
            converged = promise / 2 <= tolerance
            moved = self.features @ direction
            size, then = self._search(now.loss, promise, logits, moved, weights, direction, decays)
            if then is None:
                # Rounding is all that is left to gain.
                converged = converged or promise <= 1e-6
                break
            weights, logits, now = weights + size * direction, logits + size * moved, then
            if converged:
                break
            before, gradient = gradient, self._gradient(now, weights, decays)
            bend = float((direction * (gradient - before)).sum())
            if bend > 0:
                memory.append((size * direction, gradient - before, 1 / (size * bend)))
        return self._finish(weights, decay, now.loss, steps, converged)

    def _direction(
        self, gradient: Tensor, curvature: Tensor, decays: Tensor, memory: deque[tuple[Tensor, Tensor, float]]
    ) -> Tensor:
        """Minus the approximate inverse Hessian times the gradient (Nocedal 1980)."""
        variance = torch.cat([self.variance, self.variance.new_ones(1)])[:, None]
        out, lengths = -gradient, []
        for step, change, scale in reversed(memory):
            length = scale * float((step * out).sum())
            out = out - length * change
            lengths.append(length)
        start = (variance * curvature + decays).clamp(min=1e-12)
        out = out / start
        if memory:
            # The diagonal has the right shape; the last step tells its right size.
            _, change, scale = memory[-1]
            out = out / (scale * float((change**2 / start).sum()))
        for (step, change, scale), length in zip(memory, reversed(lengths), strict=True):
            out = out + step * (length - scale * float((change * out).sum()))
        return out

    def _search(
        self,
        loss: float,
        promise: float,
        logits: Tensor,
        moved: Tensor,
        weights: Tensor,
        direction: Tensor,
        decays: Tensor,
    ) -> tuple[float, _Look | None]:
        """A length along `direction` that lowers the loss and leaves less of a slope; None: none was found.

        The slope grows with the length, so Newton's method inside a bracket finds where it is 0.
        """
        size, low, high = 1.0, 0.0, math.inf
        for _ in range(_TRIALS):
            found = self._look(logits, weights, decays, size, moved, direction)
            if abs(found.slope) <= 0.9 * promise and found.loss <= loss + 1e-15 * abs(loss):
                return size, found
            if found.slope < 0:
                low = size
            else:
                high = size
            size -= found.slope / max(found.bend, 1e-300)
            if not low < size < high:
                size = 2 * low if high == math.inf else (low + high) / 2
        return size, None

    def _look(
        self,
        logits: Tensor,
        weights: Tensor,
        decays: Tensor,
        size: float = 0.0,
        moved: Tensor | None = None,
        direction: Tensor | None = None,
    ) -> _Look:
        """The loss at `weights + size * direction`, block by block, with its derivatives by the logits and by size."""
        n = len(logits)
        errors, curvature = torch.empty_like(logits), logits.new_zeros(self.classes)
        loss = slope = bend = 0.0
        for first in range(0, n, max(1, _BLOCK // self.classes)):
            rows = slice(first, first + max(1, _BLOCK // self.classes))
            block = logits[rows] if moved is None else logits[rows] + size * moved[rows]
            cost, shares = self._cost(block, self.targets[rows])
            loss += cost
            curvature += (shares - shares * shares).sum(dim=0)
            if moved is not None:
                weighted = shares * moved[rows]
                bend += float((weighted * moved[rows]).sum())
                bend -= float((weighted**2).sum() if self.several else (weighted.sum(dim=1) ** 2).sum())
            if self.several:
                errors[rows] = shares - self.targets[rows].to(shares)
            else:
                errors[rows] = shares.scatter_add_(1, self.targets[rows, None], shares.new_full((len(shares), 1), -1.0))
            if moved is not None:
                slope += float((errors[rows] * moved[rows]).sum())
        end = weights if direction is None else weights + size * direction
        loss = loss / n + 0.5 * float((decays * end**2).sum())
        if direction is not None:
            slope = slope / n + float((decays * end * direction).sum())
            bend = bend / n + float((decays * direction**2).sum())
        return _Look(errors, curvature / n, loss, slope, bend)

    def _cost(self, logits: Tensor, targets: Tensor) -> tuple[float, Tensor]:
        """The summed cross-entropy of some rows, and the shares that the logits mean."""
        if self.several:
            cost = F.softplus(logits).sum() - (logits * targets).sum()
            return float(cost), logits.sigmoid()
        total = logits.logsumexp(dim=1, keepdim=True)
        return float((total - logits.gather(1, targets[:, None])).sum()), (logits - total).exp()

    def _gradient(self, now: _Look, weights: Tensor, decays: Tensor) -> Tensor:
        return (now.errors.T @ self.features).T / len(self.features) + decays * weights

    def _from(self, start: Probe) -> Tensor:
        weight = start.weight.T.to(self.features)
        bias = start.bias.to(self.features) + self.mean @ weight
        return torch.cat([self.axes.T @ weight, bias[None]])

    def _finish(self, weights: Tensor, decay: float, loss: float, steps: int, converged: bool) -> Probe:
        weight = self.axes @ weights[:-1]
        bias = weights[-1] - self.mean @ weight
        if not self.several:
            bias = bias - bias.mean()
        return Probe(
            weight=weight.T.double().cpu(),
            bias=bias.double().cpu(),
            decay=decay,
            loss=loss,
            steps=steps,
            converged=converged and math.isfinite(loss),
        )


def _principal_axes(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Directions in which the features vary, (D, R) with columns of length 1, and the variance along each, (R,)."""
    n, width = centred.shape
    if n < width:
        # The few images' own products are the smaller matrix, and give the same axes.
        values, vectors = torch.linalg.eigh(centred @ centred.T / n)
        kept = values > 1e-14
        values, vectors = values[kept], vectors[:, kept]
        return centred.T @ vectors / (values * n).sqrt(), values
    values, vectors = torch.linalg.eigh(centred.T @ centred / n)
    kept = values > 1e-14
    return vectors[:, kept], values[kept]
