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

    def check(self) -> None:
        for name in ("dist_url", "dist_backend"):
            self.require(getattr(self, name) != "", name, "text that is not empty")
