"""One run from configuration to bundle: prepare, make the folder, train, save, sum up."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from pathlib import Path
from typing import Any

import torch

from clip_train.bars import indexing_bar, training_bar
from clip_train.checkpoint.foreign import ForeignOrigin
from clip_train.checkpoint.resume import Origin, find_origin, is_continued, take_up
from clip_train.checkpoint.saver import Saver
from clip_train.config import TrainConfig
from clip_train.data.bad_data import BadDataLimit
from clip_train.data.loader import explain_dead_workers
from clip_train.evaluating import Evaluations, open_evaluations
from clip_train.guard import TrainingDiverged
from clip_train.leaving import leave_bundles
from clip_train.metrics import MetricsFile
from clip_train.mirror import Mirror
from clip_train.parallel import local_parts
from clip_train.plan import Plan, prepare
from clip_train.preflight import preflight
from clip_train.recording import Recording, find_cost
from clip_train.report import leave_report
from clip_train.run_folder import RunFolder, early_log, log_level
from clip_train.sinks import open_sinks
from clip_train.surviving import surviving
from clip_train.trainer import Running, fit, start
from clip_train.watchdog import Watchdog
from clip_train.world import World, join

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

    Everything is checked before the folder is made. `progress` shows a bar on stderr. Started by torchrun or srun, this
    is one of several processes that train together; the first writes the folder. Raises a `ClipError` for what
    the user can mend and for training that diverged; a run that is cut short keeps its metrics and has no bundle.
    """
    with (
        join(config) as world,
        log_level(_level(config, world)),
        early_log(),
        Watchdog(world, seconds=config.parallel.timeout_seconds) as watchdog,
    ):
        origin = world.first_does(lambda: find_origin(config))
        if origin is not None:
            config = _adopt(origin, config, world)
        again = is_continued(config, origin)
        world.first_does(lambda: RunFolder.check(config, again=again))
        plan = _prepare(config, world, watchdog, progress)
        if origin is not None:
            world.together(lambda: origin.check(plan))
        needed = sum(value.nbytes for value in plan.bundle.model.state_dict().values())
        world.first_does(lambda: RunFolder.check(config, bytes_needed=needed, again=again))
        preflight(plan)
        evaluations = world.together(lambda: open_evaluations(plan))
        recording = Recording(plan, find_cost(plan))
        limit = BadDataLimit(recording, config.data.max_bad_fraction)
        running = start(plan, record=limit)
        running.parts["bad_data"] = limit
        if origin is not None:
            world.together(lambda: origin.restore(running))
        path, config = world.first_does(lambda: _create_folder(plan.config, again))
        # With the name that was chosen: this is what the folder's config.json states.
        running.plan = dataclasses.replace(plan, config=config)
        return _train(running, RunFolder(path), origin, recording, evaluations, watchdog, progress and world.is_first)


def _adopt(origin: Origin | ForeignOrigin, config: TrainConfig, world: World) -> TrainConfig:
    return world.together(lambda: origin.adopt(config, world))


def _prepare(config: TrainConfig, world: World, watchdog: Watchdog, progress: bool) -> Plan:
    with indexing_bar(progress and world.is_first) as show:

        def tell(done: int, total: int) -> None:
            watchdog.advance(done)
            show(done, total)

        return world.together(lambda: prepare(config, world, tell))


def _level(config: TrainConfig, world: World) -> int:
    if config.logging.debug:
        return logging.DEBUG
    return logging.INFO if world.is_first else logging.WARNING


def _create_folder(config: TrainConfig, again: bool) -> tuple[Path, TrainConfig]:
    folder, resolved = RunFolder.create(config, again=again)
    return folder.path, resolved


def _train(
    running: Running,
    folder: RunFolder,
    origin: Origin | ForeignOrigin | None,
    recording: Recording,
    evaluations: Evaluations | None,
    watchdog: Watchdog,
    progress: bool,
) -> RunResult:
    plan, config = running.plan, running.plan.config
    first = plan.world.is_first
    with contextlib.ExitStack() as stack:

        def take_up_alone() -> None:
            stack.enter_context(folder.hold())
            take_up(folder, config, origin)

        plan.world.first_does(take_up_alone)
        if first or (config.logging.log_local and plan.world.local_rank == 0):
            stack.enter_context(folder.logging(debug=config.logging.debug, rank=plan.world.rank))
        if first and config.run.remote_sync is not None:
            seconds, protocol = config.run.remote_sync_frequency, config.run.remote_sync_protocol
            stack.enter_context(Mirror(folder.path, config.run.remote_sync, seconds=seconds, protocol=protocol))
        _log.info("run folder %s", folder.path)
        _log.info("clip-train with torch %s on %s, %s", torch.__version__, plan.device, config.run.precision)
        metrics = stack.enter_context(MetricsFile(folder.metrics)) if first else None
        total, seen = plan.batching.samples(plan.total_steps), running.state.samples_seen
        show = stack.enter_context(training_bar(total, seen, progress))
        if first and config.logging.copy_codebase:
            folder.copy_code()
        if metrics:
            recording.write = metrics.write
            recording.sinks = open_sinks(config, folder.path, step=running.state.steps)
            stack.callback(recording.sinks.close)
            if evaluations is not None:
                evaluations.begin(folder.path, running.state.steps)
                stack.callback(evaluations.close)
                evaluations.send = recording.sinks.add
        running.show = show
        saver = Saver(folder.checkpoints, plan, sync_records=metrics.sync if metrics else lambda: None)
        try:
            with explain_dead_workers(), saver, surviving(running, folder, saver, watchdog) as services:
                if evaluations is not None:
                    evaluations.catch_up(running)
                # A step is saved before it is evaluated: a signal in a long evaluation costs the evaluation alone.
                fit(running, [*services, saver, *([evaluations] if evaluations else []), recording.pace])
            return _finish(running, config, folder, recording)
        except KeyboardInterrupt:
            _log.warning(
                "interrupted after %d of %d steps: %s has a record of each, no bundle was written",
                running.state.steps,
                plan.total_steps,
                folder.metrics,
            )
            _write_summary(running, folder, recording, finished=False)
            raise
        except Exception as error:
            _log.error("stopped after %d of %d steps: %s", running.state.steps, plan.total_steps, error)
            _write_summary(running, folder, recording, finished=False)
            raise


def _write_summary(running: Running, folder: RunFolder, recording: Recording, *, finished: bool) -> None:
    # Where the run was cut short the other processes may be gone: only what this one knows.
    if running.plan.world.is_first:
        recording.say()
        running.account.say()
        _leave_words(folder, _summary(running, recording, finished=finished))


def _finish(running: Running, config: TrainConfig, folder: RunFolder, recording: Recording) -> RunResult:
    plan, state = running.plan, running.state
    if state.loss is None:
        raise TrainingDiverged(f"None of the {state.steps} steps had a finite loss; no weights were written.")
    plan.world.together(lambda: _require_finite(plan))
    plan.bundle.model.eval()
    for rank, findings in enumerate(plan.world.gather(running.account.findings())):
        if rank != plan.world.rank:
            running.account.merge(findings)
    if plan.world.size > 1:
        recording.pace.compare(running)
    recording.say()
    if plan.world.is_first:
        running.account.say()
    summary = _summary(running, recording, finished=True)
    leave_bundles(running, folder)
    plan.world.first_does(lambda: _leave_words(folder, summary))
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
        skipped_samples=running.account.skipped_samples,
        truncated_captions=running.account.truncated_captions,
    )


def _require_finite(plan: Plan) -> None:
    for name, parameter in plan.bundle.model.named_parameters():
        if not all(torch.isfinite(part).all() for part in local_parts([parameter])):
            raise TrainingDiverged(f"The weights {name} are not finite; no weights were written. Lower --lr.")


def _leave_words(folder: RunFolder, summary: dict[str, Any]) -> None:
    folder.write_summary(summary)
    leave_report(folder.path)


def _summary(running: Running, recording: Recording, *, finished: bool) -> dict[str, Any]:
    state = running.state
    speed = state.samples_seen / state.seconds if state.seconds else 0.0
    return {
        "finished": finished,
        "total_steps": running.plan.total_steps,
        "processes": running.plan.world.size,
        "config_sha256": running.plan.config.sha256,
        **dataclasses.asdict(state),
        "samples_per_second": speed,
        **running.account.summary(),
        **recording.summary(),
    }
