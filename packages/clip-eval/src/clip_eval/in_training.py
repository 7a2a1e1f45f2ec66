"""Evaluation while a model is trained: the same tasks on the live weights, within a share of the time.

    evaluation = InTraining(bundle, datasets, share=0.05, every=500, last_step=total_steps)
    for step in range(1, total_steps + 1):
        ...
        if evaluation.due(step):
            metrics.write({"step": step, **evaluation.run(step)})

It measures what it costs and moves its next turn back until that is at most `share` of all the time spent so far. The
training goes on as if nothing had happened: each module's mode, the random states and the weights are what they were.
In several processes (those of `torch.distributed`) all of them evaluate together and get the same numbers. What is not
here: records, reports; `clip-eval run` on a saved bundle makes those.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

import numpy as np
import torch

from clip_core import Bundle
from clip_core.errors import ConfigError
from clip_core.model import Clip
from clip_eval.encoder import Encoder
from clip_eval.features import ImageFeatures
from clip_eval.precision import Precision
from clip_eval.processes import Ranks
from clip_eval.tasks.association import evaluate_association
from clip_eval.tasks.caption_choice import evaluate_caption_choice
from clip_eval.tasks.multilabel import evaluate_multilabel
from clip_eval.tasks.result import TaskResult
from clip_eval.tasks.retrieval import evaluate_retrieval
from clip_eval.tasks.zero_shot import evaluate_zero_shot
from clip_eval.wds import WdsDataset

__all__ = ["InTraining", "Score", "score", "undisturbed"]

_log = logging.getLogger(__name__)

Score = Callable[[Encoder, WdsDataset, ImageFeatures], TaskResult]


def score(encoder: Encoder, dataset: WdsDataset, images: ImageFeatures) -> TaskResult:
    """The task of a data set, by its kind and with its own prompts."""
    tasks: dict[str, Score] = {
        "classification": evaluate_zero_shot,
        "multilabel": evaluate_multilabel,
        "retrieval": evaluate_retrieval,
        "caption_choice": evaluate_caption_choice,
        "association": evaluate_association,
    }
    return tasks[dataset.kind](encoder, dataset, images)


class InTraining:
    """Decides when a model in training is evaluated, and evaluates it.

    Attributes:
        next_step: the first step at which it is due; the same in every process.
        spent: seconds that it has taken so far.
    """

    def __init__(
        self,
        bundle: Bundle,
        datasets: Sequence[WdsDataset],
        *,
        every: int = 1000,
        share: float = 0.05,
        last_step: int | None = None,
        batch_size: int = 64,
        workers: int = 1,
        precision: Precision | None = None,
        ranks: Ranks | None = None,
        score: Score = score,
    ) -> None:
        """Make it when training begins: from here on the time is counted.

        Args:
            bundle: its `model` is the one that is trained, without the wrapper of DistributedDataParallel.
            datasets: what it is scored on; no two of one name.
            every: it is due at multiples of so many steps, or at less of them where the share asks for it.
            share: of the time since the beginning, how much evaluation may take; above 0, at most 1. The evaluation at
                `last_step` is made in any case.
            last_step: the step after which training ends, or None.
            batch_size: images encoded at once.
            workers: threads that decode.
            precision: as in `Encoder`.
            ranks: the processes; None takes those that `torch.distributed` has joined, which all must be here.
            score: another task than the data set's own.

        Raises:
            ConfigError: no data set, two of one name, or a number out of range.
        """
        names = [dataset.name for dataset in datasets]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"The data sets are {names}; allowed: one or more, each with a name of its own.")
        if every < 1 or not 0 < share <= 1:
            raise ConfigError(f"{every=}, {share=}; allowed: every 1 or more steps, a share above 0 and at most 1.")
        self._bundle, self._datasets, self._score = bundle, tuple(datasets), score
        self._every, self._share, self._last_step = every, share, last_step
        self._batch_size, self._workers, self._precision = batch_size, workers, precision
        self._ranks = Ranks.join() if ranks is None else ranks
        self._begin = perf_counter()
        self._cost: float | None = None
        self._before: int | None = None
        self.next_step = every
        self.spent = 0.0

    def due(self, step: int) -> bool:
        """Whether `run` should be called after this step. Costs nothing, and is the same in every process.

        Ask after every step: a run that goes on begins at the first one asked about; its steps are timed from there.
        """
        if self._before is None:
            self._before = step - 1
        return step == self._last_step or (step >= self.next_step and step % self._every == 0)

    def run(self, step: int) -> dict[str, float]:
        """Evaluate the model as it is after `step` steps.

        Returns:
            For each metric of each data set `name/metric`, and its 95 % limits as `name/metric_low` and `_high`; then
            `evaluation_seconds`, `evaluation_share` (of all the time so far) and `next_evaluation_step`. Where even the
            first turn would cost more than the share, nothing but the last one: one batch was timed, and the turn is
            moved back.

        Raises:
            ClipError: a data set cannot be read any more, or the features are not finite. In every process alike, so a
                training that catches it can go on.
        """
        start = perf_counter()
        metrics: dict[str, float] = {}
        with undisturbed(self._bundle.model):
            encoder = Encoder(
                bundle=self._bundle,
                batch_size=self._batch_size,
                workers=self._workers,
                precision=self._precision,
                ranks=self._ranks,
            )
            if self._cost is None and step != self._last_step:
                self._cost = sum(encoder.estimate_seconds(dataset) for dataset in self._datasets)
            if step == self._last_step or self._affordable(start):
                for dataset in self._datasets:
                    metrics |= self._evaluate(encoder, dataset)
                self._cost = perf_counter() - start
        seconds = perf_counter() - start
        self.spent += seconds
        self.next_step = int(self._ranks.text_from_first(str(self._plan(step))))
        if not metrics:
            _log.info(
                "evaluation would take %.0f s, more than %.1f %% of the time: put off to step %d",
                self._cost or 0.0,
                100 * self._share,
                self.next_step,
            )
            return {"next_evaluation_step": self.next_step}
        return {
            **metrics,
            "evaluation_seconds": seconds,
            "evaluation_share": self.spent / (perf_counter() - self._begin),
            "next_evaluation_step": self.next_step,
        }

    def _evaluate(self, encoder: Encoder, dataset: WdsDataset) -> dict[str, float]:
        images = encoder.images(dataset)
        result = self._score(encoder, dataset, images)
        values: dict[str, float] = {}
        for name, metric in result.metrics.items():
            place = f"{dataset.name}/{name}"
            values |= {place: metric.value, f"{place}_low": metric.low, f"{place}_high": metric.high}
        if images.excluded:
            values[f"{dataset.name}/excluded"] = float(len(images.excluded))
        return values

    def _affordable(self, now: float) -> bool:
        """Whether the turn that begins `now` stays within the share; process 0 decides."""
        elapsed, cost = now - self._begin, self._cost or 0.0
        fits = self.spent + cost <= self._share * (elapsed + cost)
        return self._ranks.text_from_first(str(fits)) == str(True)

    def _plan(self, step: int) -> int:
        """The multiple of `every` from which on another turn of the same cost stays within the share."""
        elapsed = perf_counter() - self._begin
        trained = max(elapsed - self.spent, 1e-9)
        needed = (self.spent + (self._cost or 0.0)) * (1 - self._share) / self._share
        done = max(step - (self._before or 0), 1)
        steps = max(1, math.ceil((needed - trained) / (trained / done)))
        return math.ceil((step + steps) / self._every) * self._every


@contextmanager
def undisturbed(model: Clip) -> Iterator[None]:
    """Within it the model is in evaluation mode; afterwards modes and random states are what they were before."""
    modes = [(module, module.training) for module in model.modules()]
    device = model.logit_scale.device
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  (a training may draw from it)
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            model.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
