"""One run of a probe, from training features to scores of the test images: draw, choose the decay, fit, score.

What is not here: data sets, metrics of the test images (`clip_eval.tasks.linear_probe`).

Shapes: N images, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clip_core.errors import DataError
from clip_eval.probe.draws import draw_shots, hold_out, shuffled
from clip_eval.probe.solver import Probe, ProbeProblem
from clip_eval.probe.sweep import Sweep, choose_decay

__all__ = ["Run", "Split", "run_probe"]


@dataclass(frozen=True, slots=True)
class Split:
    """Features and targets of a part of the data."""

    features: Tensor
    targets: Tensor
    """int64 (N,) labels or bool (N, C)."""
    keys: list[str]

    def at(self, places: Tensor) -> Split:
        """Some of the images."""
        return Split(self.features[places], self.targets[places], [self.keys[place] for place in places.tolist()])

    def __add__(self, other: Split) -> Split:
        return Split(
            torch.cat([self.features, other.features]),
            torch.cat([self.targets, other.targets]),
            [*self.keys, *other.keys],
        )


@dataclass(frozen=True, slots=True)
class Run:
    """What one seed gave."""

    seed: int
    probe: Probe
    sweep: Sweep | None
    learnt_from: int
    validated_on: int
    known: Tensor
    """Classes that the final fit could learn, ascending."""
    scores: Tensor
    """float64 (N, C) on the test images; minus infinity for classes that it could not learn."""


def run_probe(
    seed: int,
    learn: Split,
    own: Split | None,
    test: Split,
    classnames: Sequence[str],
    fewshot_k: int | None,
    weight_decay: float | None,
    validation_share: float,
    device: torch.device,
) -> Run:
    """One probe for `test`, from the images of `learn`.

    Args:
        seed: for what is drawn by lot.
        learn: the training images.
        own: validation images, if the data set has them.
        test: only its features are looked at.
        classnames: C names.
        fewshot_k: images of each class to learn from, None for all.
        weight_decay: None to choose it.
        validation_share: of each class's images, kept back for the choice without `own`.
        device: where to compute.

    Raises:
        DataError: too few images of a class, none to choose the decay on, or none to learn from.
    """
    order = shuffled(learn.keys, seed)
    few = None
    if fewshot_k is not None:
        few = draw_shots(learn.targets, order, fewshot_k, classnames)
        rest = torch.ones(len(order), dtype=torch.bool)
        rest[few] = False
    first, check = learn if few is None else learn.at(few), own
    if check is None and weight_decay is None:
        if few is not None:
            check = learn.at(rest.nonzero().flatten())
        else:
            # Where an image has several labels, none of them is what its group should be made by.
            groups = learn.targets if learn.targets.ndim == 1 else torch.zeros(len(order), dtype=torch.int64)
            kept, held = hold_out(groups, order, validation_share)
            first, check = learn.at(kept), learn.at(held)
        if not check.keys:
            raise DataError(
                "No training image is left to choose the weight decay on. Give a validation split, or a weight_decay."
            )
    sweep = None
    if weight_decay is None and check is not None:
        problem, known = _problem(first, len(classnames), device)
        targets = check.targets[:, known] if check.targets.ndim == 2 else torch.searchsorted(known, check.targets)
        usable = torch.ones(len(check.keys), dtype=torch.bool)
        if check.targets.ndim == 1:
            usable = torch.isin(check.targets, known)
        if not usable.any():
            raise DataError("No validation image shows a class that the training images show.")
        sweep = choose_decay(problem, check.features[usable], targets[usable])
    # A few shots are all that may be learnt from; otherwise what was held back for the choice is learnt from too.
    final = first + check if few is None and check is not None and weight_decay is None else first
    problem, known = _problem(final, len(classnames), device)
    start = None if sweep is None or sweep.probe.weight.shape[0] != len(known) else sweep.probe
    probe = problem.fit(weight_decay or (sweep.best.decay if sweep is not None else 1.0), start=start)
    scores = torch.full((len(test.keys), len(classnames)), -torch.inf, dtype=torch.float64)
    scores[:, known] = probe.scores(test.features)
    return Run(
        seed, probe, sweep, len(final.keys), 0 if sweep is None or check is None else len(check.keys), known, scores
    )


def _problem(split: Split, classes: int, device: torch.device) -> tuple[ProbeProblem, Tensor]:
    """The fit of the classes that can be learnt, and which they are."""
    if split.targets.ndim == 2:
        counts = split.targets.sum(dim=0)
        known = ((counts > 0) & (counts < len(split.targets))).nonzero().flatten()
        targets = split.targets[:, known]
    else:
        known = torch.unique(split.targets)
        targets = torch.searchsorted(known, split.targets)
    if not len(known):
        raise DataError("No class has examples to learn from.")
    return ProbeProblem(split.features, targets, len(known), device=device), known
