"""Chooses the weight decay of a probe by what it scores on validation images; test images have no part in it.

What is not here: which images validate (`draws`, `clip_eval.tasks.linear_probe`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from clip_eval.metrics.average_precision import score_multilabel
from clip_eval.metrics.classification import score_classification
from clip_eval.probe.solver import Probe, ProbeProblem

__all__ = ["DECAYS", "Sweep", "Trial", "choose_decay", "nearest"]

DECAYS: tuple[float, ...] = tuple(10 ** (place / 8 - 9) for place in range(81))
"""1e-9 to 10, eight to a power of ten, times the variance of the features, so that their scale does not matter.

For N features of variance 1 that is scikit-learn's C from 1e9 / N to 0.1 / N."""
_FIRST = 16
"""Places between the decays that are tried first; then its halves around the best, as Radford et al. 2021 do it."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One decay."""

    decay: float
    score: float
    """On the validation images: accuracy, or mean average precision."""
    loss: float
    """Cross-entropy on the validation images, in nats per image."""
    steps: int
    converged: bool


@dataclass(frozen=True, slots=True)
class Sweep:
    """All decays that were tried, ascending, and the best of them."""

    trials: tuple[Trial, ...]
    best: Trial
    probe: Probe
    """The fit of the best decay, on the images that the sweep learnt from."""

    at_edge: bool
    """Whether a decay beyond the grid might have been better."""


def choose_decay(
    problem: ProbeProblem, features: Tensor, targets: Tensor, *, tick: Callable[[], None] = lambda: None
) -> Sweep:
    """Fits `problem` with some of `DECAYS` (times its spread) and scores each on validation features and targets.

    The best is the one with the highest score; of equal ones that with the lowest loss. tick: called after each fit.
    """
    probes: dict[int, Probe] = {}
    trials: dict[int, Trial] = {}

    def attempt(place: int) -> None:
        if place in probes or not 0 <= place < len(DECAYS):
            return
        # Large decays are solved in a few steps, and smaller ones start from there.
        probe = problem.fit(DECAYS[place] * problem.spread, start=nearest(probes, place), tolerance=1e-6)
        score, loss = _validate(probe, features, targets)
        probes[place] = probe
        trials[place] = Trial(probe.decay, score, loss, probe.steps, probe.converged)
        tick()

    for place in reversed(range(0, len(DECAYS), _FIRST)):
        attempt(place)
    step = _FIRST // 2
    while step:
        middle = _best(trials)
        attempt(middle + step)
        attempt(middle - step)
        step //= 2
    best = _best(trials)
    return Sweep(
        tuple(trials[place] for place in sorted(trials)), trials[best], probes[best], best in (0, len(DECAYS) - 1)
    )


def nearest(probes: dict[int, Probe], place: int) -> Probe | None:
    """The solution for the closest decay; of two the one for the larger."""
    if not probes:
        return None
    return probes[min(probes, key=lambda other: (abs(other - place), -other))]


def _best(trials: dict[int, Trial]) -> int:
    return max(trials, key=lambda place: (trials[place].score, -trials[place].loss))


def _validate(probe: Probe, features: Tensor, targets: Tensor) -> tuple[float, float]:
    logits = probe.scores(features)
    if targets.ndim == 2:
        loss = float(F.binary_cross_entropy_with_logits(logits, targets.double(), reduction="none").sum(dim=1).mean())
        return score_multilabel(logits, targets).mean.value, loss
    return score_classification(logits, targets).metrics["acc1"].value, float(F.cross_entropy(logits, targets))
