"""After too many skipped steps in a row: back to the last good checkpoint, and past the data that led there.

Data has a position of its own beside the number of the step: `state.data_offset` steps further on. Going back from
step b to the checkpoint of step a adds b - a to it, so the same steps are taken again with the data that would have
come next, and what was left out is exactly that of b - a steps. What this room leaves out: what is skipped (`guard`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from clip_train.checkpoint import full, newest
from clip_train.checkpoint.resume import Origin
from clip_train.trainer import Running

__all__ = ["RollBack", "from_last_checkpoint"]

_log = logging.getLogger(__name__)


class RollBack:
    """A service that takes a run back, a limited number of times. It comes before the service that saves."""

    votes: tuple[str, ...] = ()

    def __init__(
        self,
        restore: Callable[[Running], object | None],
        *,
        most: int,
        forget: Callable[[int], None] = lambda step: None,
    ) -> None:
        """Args:
        restore: puts the last good checkpoint into the run, on every process, and gives it a name; None: there is none.
        most: going back so often is the limit.
        forget: drops the records of the steps after the one with this number.
        """
        self._restore = restore
        self._most = most
        self._forget = forget

    def after_step(self, running: Running, admitted: Tensor) -> None:
        """Go back where the guard's limit is reached. Raises `TrainingDiverged` where that cannot help."""
        guard, state = running.guard, running.state
        if guard.exhausted:
            # The last steps may not have been counted yet, and a good one among them begins the count anew.
            running.settle()
        if not guard.exhausted:
            return
        step, position = state.steps, state.steps + state.data_offset
        rollbacks, skipped, spikes = guard.rollbacks, guard.skipped, guard.spikes
        if rollbacks >= self._most:
            raise guard.diverged(step, f"Training went back to a checkpoint {rollbacks} times (--guard-rollbacks).")
        origin = self._restore(running)
        if origin is None:
            raise guard.diverged(step, "There is no checkpoint to go back to.")
        guard.in_a_row, guard.rollbacks, guard.skipped, guard.spikes = 0, rollbacks + 1, skipped, spikes
        state.data_offset = position - state.steps
        self._forget(state.steps)
        _log.warning(
            "too many steps in a row were skipped: back from step %d to step %d (%s); the data of these %d steps is "
            "left out, data is read %d steps further on (%d of %d times)",
            step,
            state.steps,
            origin,
            step - state.steps,
            state.data_offset,
            guard.rollbacks,
            self._most,
        )


def from_last_checkpoint(root: Path, wait: Callable[[], None]) -> Callable[[Running], object | None]:
    """What puts the newest good checkpoint in `root` into a run; `wait` waits for one that is being written.

    What was found out about the data stays known, and the time that passed stays passed.
    """

    def restore(running: Running) -> object | None:
        wait()
        world = running.plan.world
        folder = world.first_does(lambda: newest(root))
        if folder is None:
            return None
        origin = Origin(folder, full.read_header(folder))
        account, seconds = running.account, running.state.seconds
        running.account = type(account)(running.plan.source)
        try:
            world.together(lambda: origin.restore(running))
        finally:
            running.account, running.state.seconds = account, seconds
        return folder

    return restore
