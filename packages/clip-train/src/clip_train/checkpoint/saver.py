"""When a run is saved, and what happens where that fails: `Saver`, a service of the loop and a context around it.

A save that fails is said, tried once more, and given up; training goes on with the older checkpoints, until several in
a row have failed. What this room leaves out: how a checkpoint is written (`full`, `sharded`, `manifest`).
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from clip_core.errors import StorageError
from clip_train.checkpoint import disk, full, sharded
from clip_train.checkpoint.manifest import prune, publish, scratch_folder
from clip_train.checkpoint.state import Snapshot, alone, take
from clip_train.plan import Plan
from clip_train.trainer import Running

__all__ = ["MOST_FAILED", "SAVE", "Saver"]

_log = logging.getLogger(__name__)

MOST_FAILED = 3
"""So many saves in a row may fail before the run ends."""

SAVE = "save"
"""The vote for a checkpoint after the next step; any service may cast it, if it lists the name among its votes."""

_GIVE_UP = "give up saving"


class Saver:
    """Saves a run by epochs, steps and minutes, when `SAVE` was voted for, and where the run stops.

    It comes behind the services that change the run, so that what they did at a step is in the checkpoint of that step.
    """

    votes: tuple[str, ...] = (SAVE, _GIVE_UP)

    def __init__(self, root: Path, plan: Plan, *, sync_records: Callable[[], None] = lambda: None) -> None:
        """Every process makes one.

        root: the folder of the checkpoints.
        sync_records: makes sure that the records of all steps are on the disk.
        """
        self.root = root
        self._plan = plan
        self._config = plan.config.checkpoint
        self._sync_records = sync_records
        self._failed = 0
        self._last_error = ""
        self._saved_step: int | None = None
        self._saved_at = time.monotonic()
        self._trusted: set[Path] = set()
        self._thread: threading.Thread | None = None
        self._crash: BaseException | None = None
        self._shards = sharded.Writer(plan.world) if self._config.fsdp_checkpoint == "sharded" else None

    def after_step(self, running: Running, admitted: Tensor) -> None:
        """Save if this step, or a vote, says so. Raises `StorageError` when too many saves in a row have failed."""
        self._raise_crash()
        if _GIVE_UP in running.agreed:
            raise self._give_up()
        step, minutes = running.state.steps, self._config.save_every_minutes
        if self._thread is None and self._saved_step is not None and step < self._saved_step:
            # Training went back, which waits for saves in the background: later steps are taken, and saved, again.
            self._saved_step = None
        epoch = self._plan.epoch_ended_by(step)
        last = step == self._plan.total_steps
        frequency = self._config.save_frequency
        stays = last or (epoch is not None and frequency > 0 and epoch % frequency == 0)
        each = self._config.save_every_n_steps
        rolling = (
            (epoch is not None and self._config.save_most_recent)
            or (each is not None and step % each == 0)
            or SAVE in running.agreed
            or running.stop
        )
        if stays or rolling:
            self.save(running, stays=stays)
        elif self._plan.world.is_first and minutes is not None and time.monotonic() - self._saved_at >= minutes * 60:
            # The clocks of the processes differ; one of them counts, and tells the others with the next step.
            running.votes[SAVE] = True
        if self._failed >= MOST_FAILED and self._plan.world.is_first:
            running.votes[_GIVE_UP] = True

    def save(self, running: Running, *, stays: bool = False) -> None:
        """Save what `running` is after its last step; every process calls it after the same step.

        stays: keep it when newer ones come. A state with a number that is not finite is not saved.
        Raises `StorageError` when too many saves in a row have failed.
        """
        running.settle()
        step = running.state.steps
        # A save in the background is done or has failed before the same step is saved again.
        self.wait()
        # The first process knows whether it could be written; whether to save is one answer for all of them.
        if self._plan.world.from_first(step == self._saved_step):
            return
        world, started = self._plan.world, time.perf_counter()
        snapshot = take(running)
        wrong = next((word for word in world.gather(_not_finite(snapshot)) if word is not None), None)
        if wrong is not None:
            _log.error("step %d is not saved: %s is not finite; older checkpoints stay", step, wrong)
            return
        self._saved_at = time.monotonic()
        background = self._config.save_async
        if background:
            # Training changes what the thread writes; tensors of the other parts are copied below.
            snapshot.foreign = alone(snapshot.foreign)
        copy: Snapshot | None = None
        if self._shards:
            copy = self._shards.collected(snapshot, copy=background)
        elif world.is_first:
            copy = full.collected(snapshot, copy=background)
        else:
            full.take_part(snapshot)
        if background:
            self._thread = threading.Thread(target=self._write_aside, args=(copy, step, stays, started), daemon=True)
            self._thread.start()
            return
        self._write(copy, step, stays, started)
        self._failed = world.from_first(self._failed)
        if self._failed >= MOST_FAILED:
            raise self._give_up()

    def wait(self) -> None:
        """Wait for a save in the background."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._raise_crash()

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for a save in the background, and say where the last one failed."""
        if kind is None or self._shards is None or self._plan.world.size == 1:
            self.wait()
        # Else a process that has failed would be waited for.
        if self._failed and self._plan.world.is_first:
            _log.error("the last save of the run failed: %s", self._last_error)

    def _write_aside(self, snapshot: Snapshot | None, step: int, stays: bool, started: float) -> None:
        try:
            self._write(snapshot, step, stays, started)
        except BaseException as error:
            self._crash = error

    def _raise_crash(self) -> None:
        if self._crash is not None:
            crash, self._crash = self._crash, None
            raise crash

    def _write(self, snapshot: Snapshot | None, step: int, stays: bool, started: float) -> None:
        """Write and publish, at most twice; what failed is counted, and nothing of it is left."""
        if snapshot is None:
            return
        for attempt in (1, 2):
            error = self._try(snapshot, step, stays, started)
            if error is None:
                self._failed, self._saved_step = 0, step
                return
            self._last_error = error
            if self._plan.world.is_first:
                _log.warning(
                    "step %d could not be saved (%s); %s",
                    step,
                    error,
                    "trying once more" if attempt == 1 else "older checkpoints stay, training goes on",
                )
        self._failed += 1

    def _try(self, snapshot: Snapshot, step: int, stays: bool, started: float) -> str | None:
        """What was wrong; with shards the same on every process."""
        if self._shards is not None:
            return self._shards.write(
                self.root,
                snapshot,
                step,
                self._plan.bundle,
                lambda folder, hashes: self._publish(folder, hashes, step, stays, started),
            )
        folder = scratch_folder(self.root, step)
        try:
            disk.make_folder(folder)
            full.write(folder, snapshot, self._plan.bundle)
            self._publish(folder, None, step, stays, started)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            return str(error)
        return None

    def _publish(self, folder: Path, hashes: sharded.Hashes | None, step: int, stays: bool, started: float) -> None:
        # No checkpoint without the records that lead to it: what refuses them is a failed save.
        self._sync_records()
        size = publish(folder, step, stays=stays, hashes=hashes)
        _log.info("checkpoint %s, %.1f MB in %.1f s", folder, size / 1e6, time.perf_counter() - started)
        self._trusted.add(folder)
        try:
            prune(self.root, only_newest=self._config.delete_previous_checkpoint, trusted=self._trusted)
        except OSError as error:
            _log.warning("older checkpoints in %s cannot be deleted: %s", self.root, error)

    def _give_up(self) -> StorageError:
        reason = f": {self._last_error}" if self._last_error else ""
        return StorageError(
            f"{MOST_FAILED} saves in a row have failed{reason}. Make room, or mend the folder {self.root}, and go on "
            "with --resume latest."
        )


def _not_finite(snapshot: Snapshot) -> str | None:
    """The name of a tensor with a number that is not finite; of divided ones this process's piece is looked at."""
    names, finite = [], []
    held = {**snapshot.tensors(), **dict(_tensors_in(snapshot.foreign, "beside"))}
    for name, value in held.items():
        here = value.to_local() if hasattr(value, "to_local") else value
        if here.is_floating_point() and here.numel():
            names.append(name)
            finite.append(torch.isfinite(here).all())
    for device in {value.device for value in finite}:
        group = [(name, ok) for name, ok in zip(names, finite, strict=True) if ok.device == device]
        all_fine = torch.stack([ok for _, ok in group])
        if not bool(all_fine.all()):
            return group[all_fine.tolist().index(False)][0]
    return None


def _tensors_in(value: Any, place: str) -> Iterator[tuple[str, Tensor]]:
    """Those anywhere in what `torch.save` is to write, each with its place behind `place`."""
    if isinstance(value, Tensor):
        yield place, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors_in(item, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _tensors_in(item, f"{place}.{number}")
