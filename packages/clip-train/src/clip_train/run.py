"""One run from configuration to bundle: prepare, make the folder, train, save, sum up."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import clip_core
from clip_train.config import TrainConfig
from clip_train.data.loader import explain_dead_workers
from clip_train.guard import TrainingDiverged
from clip_train.metrics import MetricsFile, SampleAccount
from clip_train.plan import Plan, prepare
from clip_train.run_folder import RunFolder, log_level
from clip_train.trainer import Fit, fit

__all__ = ["RunResult", "train"]

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a finished run has left."""

    folder: Path
    """`<logs>/<name>`."""
    bundle: Path
    """The folder that `clip_core.load` reads."""
    config: TrainConfig
    steps: int
    samples_seen: int
    loss: float
    """Of the last step that was finite."""
    samples_per_second: float
    """Over the whole loop, reading included."""
    skipped_steps: int
    skipped_samples: int
    """Different samples that could not be used."""
    truncated_captions: int
    """Different samples whose caption was longer than the context."""


def train(config: TrainConfig, *, progress: bool = False) -> RunResult:
    """Train as `config` says and leave the run folder `<logs>/<name>` behind.

    Everything is checked before the folder is made. `progress` shows a bar on stderr. Raises a `ClipError` for what
    the user can mend and for training that diverged; a run that is cut short keeps its metrics and has no bundle.
    """
    with log_level(logging.DEBUG if config.run.debug else logging.INFO):
        RunFolder.check(config)
        plan = prepare(config)
        RunFolder.check(config, bytes_needed=sum(value.nbytes for value in plan.bundle.model.state_dict().values()))
        folder, config = RunFolder.create(plan.config)
    with folder.logging(debug=config.run.debug):
        _log.info("run folder %s", folder.path)
        _log.info("clip-train with torch %s on %s, %s", torch.__version__, plan.device, config.run.precision)
        state, account = Fit(), SampleAccount(plan.source)
        try:
            with MetricsFile(folder.metrics) as metrics, _bar(plan, progress) as show, explain_dead_workers():
                fit(plan, state, account, metrics.write, show)
            return _finish(plan, config, folder, state, account)
        except KeyboardInterrupt:
            _log.warning(
                "interrupted after %d of %d steps: %s has a record of each, no bundle was written",
                state.steps,
                plan.total_steps,
                folder.metrics,
            )
            folder.write_summary(_summary(plan, state, account, finished=False))
            raise
        except Exception as error:
            _log.error("stopped after %d of %d steps: %s", state.steps, plan.total_steps, error)
            folder.write_summary(_summary(plan, state, account, finished=False))
            raise


def _finish(plan: Plan, config: TrainConfig, folder: RunFolder, state: Fit, account: SampleAccount) -> RunResult:
    if state.loss is None:
        raise TrainingDiverged(f"None of the {state.steps} steps had a finite loss; no weights were written.")
    for name, parameter in plan.bundle.model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise TrainingDiverged(f"The weights {name} are not finite; no weights were written. Lower --lr.")
    plan.bundle.model.eval()
    clip_core.save(plan.bundle, folder.bundle)
    summary = _summary(plan, state, account, finished=True)
    folder.write_summary(summary)
    _log.info("bundle %s, loss %.5g, %.0f samples/s", folder.bundle, state.loss, summary["samples_per_second"])
    return RunResult(
        folder=folder.path,
        bundle=folder.bundle,
        config=config,
        steps=state.steps,
        samples_seen=state.samples_seen,
        loss=state.loss,
        samples_per_second=summary["samples_per_second"],
        skipped_steps=state.skipped_steps,
        skipped_samples=account.skipped_samples,
        truncated_captions=account.truncated_captions,
    )


def _summary(plan: Plan, state: Fit, account: SampleAccount, *, finished: bool) -> dict[str, Any]:
    speed = state.samples_seen / state.seconds if state.seconds else 0.0
    return {
        "finished": finished,
        "total_steps": plan.total_steps,
        **dataclasses.asdict(state),
        "samples_per_second": speed,
        **account.summary(),
    }


@contextlib.contextmanager
def _bar(plan: Plan, wanted: bool) -> Iterator[Callable[[int, float], None]]:
    from tqdm import tqdm

    total = plan.total_steps * plan.config.optim.batch_size
    with tqdm(total=total, unit=" samples", unit_scale=True, disable=not wanted, dynamic_ncols=True) as bar:

        def show(samples: int, loss: float) -> None:
            bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            bar.update(samples)

        yield show
