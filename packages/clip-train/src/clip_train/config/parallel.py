"""How several processes share the work: `ParallelConfig`."""

from __future__ import annotations

import dataclasses

from clip_core.schema import Schema
from clip_train.config.flag import flag

__all__ = ["ParallelConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ParallelConfig(Schema):
    """How several processes meet and share the work; torchrun or srun start them, without a flag."""

    dist_url: str | None = flag(None, help="where the processes meet, say tcp://host:port; not given: as launched")
    dist_backend: str | None = flag(None, help="torch's backend; not given: nccl for GPUs, gloo for CPUs")
    ddp_static_graph: bool = flag(False, help="promise that every step uses the same parameters, which DDP can use")

    timeout_seconds: float = flag(
        300.0,
        help="a process that says nothing, or hangs in a step, for so long ends all of them by name; ten times that for "
        "preparing, the first steps, saving and evaluating; 0: torch's own limits",
    )
    stop_seconds: float = flag(
        120.0, help="from SIGTERM, SIGINT or SIGUSR1 until the process ends by force, the save included"
    )

    def check(self) -> None:
        self.require(self.timeout_seconds >= 0, "timeout_seconds", "0 or more")
        self.require(self.stop_seconds > 0, "stop_seconds", "above 0")
        for name in ("dist_url", "dist_backend"):
            self.require(getattr(self, name) != "", name, "text that is not empty")
