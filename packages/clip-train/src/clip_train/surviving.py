"""What stands around the loop so that a run survives: signals that stop it, roll backs, errors that name who is lost.

What this room leaves out: each of these (`stopping`, `rollback`, `watchdog`), and what is tried before (`preflight`).
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

from clip_train.checkpoint import ledger, published
from clip_train.checkpoint.saver import Saver
from clip_train.rollback import RollBack, from_last_checkpoint
from clip_train.run_folder import RunFolder
from clip_train.stopping import Stopped, Stopping, how_to_go_on
from clip_train.trainer import Running, Service
from clip_train.watchdog import Watchdog

__all__ = ["surviving"]

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def surviving(running: Running, folder: RunFolder, saver: Saver, watchdog: Watchdog) -> Iterator[list[Service]]:
    """Around the loop: its services, which come before `saver`.

    Raises `Stopped` behind the loop where a signal has ended it early, and `PeerLost` for torch's error about a message
    that did not arrive.
    """
    plan = running.plan
    config = plan.config
    rollback = RollBack(
        from_last_checkpoint(folder.checkpoints, saver.wait),
        most=config.run.guard_rollbacks,
        forget=lambda step: ledger.cut(folder.metrics, step) if plan.world.is_first else None,
    )
    running.guard.can_roll_back = True
    running.at = watchdog.at
    with watchdog.explaining(), Stopping(seconds=config.parallel.stop_seconds) as stopping:
        yield [stopping, rollback]
        if stopping.by is None or running.state.steps == plan.total_steps:
            return
        saver.wait()
        saved = [entry for entry in published(folder.checkpoints) if entry.step == running.state.steps]
        where = f"saved as {saved[-1].path}" if saved else "and not saved"
        took = f"{time.monotonic() - stopping.at:.1f} s after the signal" if stopping.at else "by another process"
        _log.info("torchrun waits 30 s between SIGTERM and SIGKILL (--shutdown-timeout); the run is %s %s", where, took)
    raise Stopped(
        f"{stopping.by} stopped the run after {running.state.steps} of {plan.total_steps} steps, {where}. "
        f"{how_to_go_on()}"
    )
