"""When what is evaluated, and what is left of it: `evaluations.jsonl`, and records of clip-eval in `eval/epoch_N/`.

All processes evaluate together, between two steps. The training is not disturbed: modes, random states and weights are
afterwards what they were before, and the losses of a run are the same to the bit with evaluations and without.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from clip_core.errors import ClipError, ConfigError
from clip_eval.encoder import Encoder
from clip_eval.evaluation import Options, default_task, precision_of, settings_of
from clip_eval.features import ImageFeatures
from clip_eval.in_training import InTraining, score, undisturbed
from clip_eval.precision import Precision
from clip_eval.processes import Ranks
from clip_eval.records import Record, dataset_facts, model_facts, run_facts
from clip_eval.running import Wanted, open_selected
from clip_eval.selection import select
from clip_eval.tasks import TaskResult
from clip_eval.wds import WdsDataset
from clip_train.evaluating.class_folders import open_imagenet
from clip_train.evaluating.validation import Validation
from clip_train.metrics import RecordFile
from clip_train.parallel import gathered, is_sharded
from clip_train.plan import Plan
from clip_train.trainer import Running

__all__ = ["Evaluations", "open_evaluations"]

_log = logging.getLogger(__name__)

_IMAGENET = {"imagenet1k": "imagenet", "imagenetv2": "imagenetv2"}
"""Our name of a data set -> the beginning of open_clip's names of its metrics."""


def open_evaluations(plan: Plan) -> Evaluations | None:
    """What the flags ask for, with all data opened and checked; None where they ask for nothing.

    Raises a `ClipError` for data that is not there, or cannot be used.
    """
    given = plan.config.evaluation
    pairs = Validation(plan.config) if given.val_data and given.val_frequency else None
    classes: list[WdsDataset] = []
    if given.zeroshot_frequency:
        for address, name in ((given.imagenet_val, "imagenet1k"), (given.imagenet_v2, "imagenetv2")):
            if address:
                classes.append(open_imagenet(address, name))
    others = [open_selected(chosen, Wanted()) for chosen in select(given.eval_data)] if given.eval_data else []
    names = [dataset.name for dataset in (*classes, *others)]
    if len(set(names)) < len(names):
        raise ConfigError(f"Two data sets of one name are to be evaluated: {', '.join(names)}. Leave one out.")
    return Evaluations(plan, pairs, classes, others) if pairs or classes or others else None


class Evaluations:
    """A service that evaluates after epochs, behind the one that saves.

    A run that was cut short between a save and the evaluation of the same step makes up for it when it goes on
    (`catch_up`), where its checkpoint is of the end of an epoch.

    Attributes:
        send: what the first process calls with each result and its step; for tensorboard and its kin.
    """

    votes: tuple[str, ...] = ()

    def __init__(
        self, plan: Plan, pairs: Validation | None, classes: Sequence[WdsDataset], others: Sequence[WdsDataset]
    ) -> None:
        world, given, epochs = plan.world, plan.config.evaluation, plan.config.optim.epochs
        self.send: Callable[[dict[str, float], int], None] = lambda values, step: None
        self._plan, self._pairs = plan, pairs
        self._ranks = Ranks(world.rank, world.size, world.local_rank, world.control)
        self._folder: Path | None = None
        self._file: RecordFile | None = None
        self._epoch = 0
        self._seen = 0
        self._lacking = False
        self._facts: tuple[int, dict[str, Any]] = (-1, {})
        common: dict[str, Any] = {
            "last_step": epochs,
            "batch_size": plan.config.optim.batch_size,
            "workers": max(1, plan.config.data.workers),
            "precision": _precision(plan),
            "ranks": self._ranks,
            "score": self._score,
        }
        # Their steps are epochs: what is due is asked when one has ended.
        self._turns = [
            InTraining(plan.evaluated, datasets, every=every, share=share, **common)
            for datasets, every, share in (
                (classes, given.zeroshot_frequency, 1.0),
                (others, 1, given.eval_share),
            )
            if datasets
        ]

    def begin(self, folder: Path, step: int) -> None:
        """Write into the run folder `folder`; the run has come to `step`, and what was found later is taken away."""
        self._folder = folder
        path = folder / "evaluations.jsonl"
        self._file = RecordFile(path)
        self._lacking = step > 0
        if not path.is_file():
            return
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        self._lacking = step > 0 and all(json.loads(line)["step"] != step for line in kept)
        path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        epochs = {json.loads(line)["epoch"] for line in kept}
        for place in (folder / "eval").glob("epoch_*"):
            if int(place.name.removeprefix("epoch_")) > max(epochs, default=0):
                shutil.rmtree(place)

    def close(self) -> None:
        """Try once more to write what the disk has refused."""
        if self._file is not None:
            self._file.close()

    def after_step(self, running: Running, admitted: Tensor) -> None:
        """Evaluate, where an epoch has ended and something is due."""
        step = running.state.steps
        went_back, self._seen = step <= self._seen, step
        # After a roll back the step was evaluated when it was taken; after a signal there is no time.
        if not went_back and not running.stop:
            self._evaluate(running)

    def catch_up(self, running: Running) -> None:
        """Evaluate the last step of a run that goes on, where it ended an epoch and `begin` found no record of it."""
        self._seen = running.state.steps
        if self._plan.world.from_first(self._lacking):
            self._evaluate(running)

    def _evaluate(self, running: Running) -> None:
        epoch = self._plan.epoch_ended_by(running.state.steps)
        if epoch is None:
            return
        self._epoch = epoch
        frequency, last = self._plan.config.evaluation.val_frequency, epoch == self._plan.config.optim.epochs
        validates = self._pairs is not None and (epoch % frequency == 0 or last)
        due = [turn for turn in self._turns if turn.due(epoch)]
        if not validates and not due:
            return
        start = time.perf_counter()
        values: dict[str, float] = {}
        bundle = self._plan.evaluated
        with gathered(bundle.model), contextlib.ExitStack() as stack:
            if validates and self._pairs is not None:
                stack.enter_context(undisturbed(bundle.model))
                pairs = self._pairs
                values |= self._attempt("validation", lambda: _named("val", pairs.run(bundle, self._ranks)))
                stack.close()
            for turn in due:
                found = self._attempt("an evaluation", lambda turn=turn: turn.run(epoch))  # type: ignore[misc]
                values |= {name: value for name, value in found.items() if "/" in name}
        if values and running.plan.world.is_first:
            self._keep(running, values, time.perf_counter() - start)

    def _attempt(self, what: str, work: Callable[[], dict[str, float]]) -> dict[str, float]:
        """What `work` gives; nothing, said in the log, where it fails: in every process alike."""
        try:
            return work()
        except ClipError as error:
            _log.error("%s after epoch %d failed, the training goes on: %s", what, self._epoch, error)
            return {}

    def _keep(self, running: Running, values: dict[str, float], seconds: float) -> None:
        step = running.state.steps
        for name, prefix in _IMAGENET.items():
            for k in (1, 5):
                if f"{name}/acc{k}" in values:
                    values[f"val/{prefix}-zeroshot-val-top{k}"] = values[f"{name}/acc{k}"]
        record = {
            "step": step,
            "epoch": self._epoch,
            "samples_seen": running.state.samples_seen,
            "evaluation_seconds": seconds,
            **{name: value if math.isfinite(value) else None for name, value in values.items()},
        }
        if self._file is not None:
            self._file.add(step, json.dumps(record, allow_nan=False))
        self.send(values, step)
        shown = ", ".join(
            f"{name} {value:.4g}" for name, value in values.items() if not name.endswith(("_low", "_high"))
        )
        _log.info("epoch %d, evaluated in %.1f s: %s", self._epoch, seconds, shown)

    def _score(self, encoder: Encoder, dataset: WdsDataset, images: ImageFeatures) -> TaskResult:
        """clip-eval's own task, of which the first process keeps the record."""
        result = score(encoder, dataset, images)
        # Of a model in pieces there are no weights here that a record could state the hash of.
        if self._folder is not None and not is_sharded(encoder.bundle.model):
            try:
                self._record(encoder, dataset, images, result).save(self._folder / "eval" / f"epoch_{self._epoch}")
            except (ClipError, OSError) as error:
                # An error that only this process has would leave the others waiting.
                _log.error("no record of %s after epoch %d: %s", dataset.name, self._epoch, error)
        return result

    def _record(self, encoder: Encoder, dataset: WdsDataset, images: ImageFeatures, result: TaskResult) -> Record:
        if self._facts[0] != self._epoch:
            self._facts = self._epoch, model_facts(encoder.bundle)
        task = default_task(dataset)
        name = f"{self._plan.config.run.name}, epoch {self._epoch}"
        return Record(
            result=result,
            dataset=dataset,
            excluded=images.excluded,
            facts={
                "model": {"name": name, **self._facts[1]},
                "dataset": dataset_facts(dataset, images),
                **run_facts(encoder.bundle, processes=encoder.ranks.size),
                "precision": precision_of(encoder),
                "settings": settings_of(task, dataset, Options()),
                "batch_size": encoder.batch_size,
                "seconds": {
                    "decode_wait": images.seconds_decode,
                    "encode_images": images.seconds_encode,
                    "store": images.seconds_store,
                    "encode_texts": result.seconds_texts,
                    "metrics": result.seconds_metrics,
                },
                "created": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
            },
        )


def _precision(plan: Plan) -> Precision | None:
    """That of the training where the towers can be evaluated in it; else fp32, or what the weights are in."""
    if plan.config.run.precision == "amp_bf16":
        return "amp_bf16"
    return "amp" if plan.config.run.precision == "amp" and plan.device.type == "cuda" else None


def _named(prefix: str, values: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in values.items()}
