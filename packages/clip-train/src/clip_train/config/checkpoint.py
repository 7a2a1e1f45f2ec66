"""What is saved on the way, and what a run goes on from: `CheckpointConfig`."""

from __future__ import annotations

import dataclasses
from typing import Literal

from clip_core.schema import Schema
from clip_train.config.flag import flag

__all__ = ["CheckpointConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointConfig(Schema):
    """Checkpoints, and the run that is continued."""

    save_frequency: int = flag(
        1, help="epochs between two checkpoints that stay; 0: only the last; the end of a run is always saved"
    )
    save_most_recent: bool = flag(False, help="also save after every epoch, and keep the newest two of these")
    save_every_n_steps: int | None = flag(
        None, help="also save after so many optimiser steps, and keep the newest two of these"
    )
    save_every_minutes: float | None = flag(None, help="also save after so many minutes, and keep the newest two")
    save_async: bool = flag(
        False, help="copy the state to memory and write it while training goes on; needs room for one more state"
    )
    delete_previous_checkpoint: bool = flag(False, help="keep only the newest two good checkpoints of any kind")
    fsdp_checkpoint: Literal["full", "sharded"] = flag(
        "full",
        help="full: the first process writes everything, as a folder that clip_core.load reads; sharded: every process "
        "writes its share, with --fsdp and without",
    )
    resume: str | None = flag(
        None,
        help="go on from a checkpoint, a run's folder, or open_clip's epoch_N.pt; latest: from the newest good "
        "checkpoint of --name, or from the beginning where there is none",
    )

    def check(self) -> None:
        self.require(self.save_frequency >= 0, "save_frequency", "0 or more")
        for name in ("save_every_n_steps", "save_every_minutes"):
            value = getattr(self, name)
            self.require(value is None or value > 0, name, "above 0, or None")
        self.require(self.resume is None or bool(self.resume.strip()), "resume", "a path, latest, or None")
