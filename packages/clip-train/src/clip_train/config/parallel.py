"""How several processes share the work: `ParallelConfig`."""

from __future__ import annotations

import dataclasses
from typing import Literal

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
        help="a process that says nothing, or hangs in a step, for so long ends all of them by name; ten times that "
        "for preparing, the first steps, saving and evaluating; 0: torch's own limits",
    )
    stop_seconds: float = flag(
        120.0, help="from SIGTERM, SIGINT or SIGUSR1 until the process ends by force, the save included"
    )
    use_bn_sync: bool = flag(False, help="batch norms with the statistics of all processes' images; on GPUs")
    fsdp: bool = flag(False, help="each process keeps its part of weights, gradients and optimiser state (FSDP2)")
    fsdp_no_reshard_after_forward: bool = flag(
        False, help="keep the gathered weights from the forward to the backward pass: faster, more memory"
    )
    fsdp_offload_cpu: bool = flag(False, help="keep the parts in the host's memory, and take the update there")
    torchcompile: bool = flag(False, help="compile the model (torch.compile)")
    torchcompile_strategy: Literal["task", "model", "step"] = flag(
        "task", help="what is compiled: the blocks of the model, or its losses too (task; step is the same)"
    )
    torchcompile_backend: str | None = flag(None, help="the compiler's backend; not given: inductor")
    torchcompile_mode: Literal["default", "max-autotune-no-cudagraphs"] | None = flag(
        None, help="inductor's mode: max-autotune-no-cudagraphs; not given: its default"
    )

    def check(self) -> None:
        self.require(self.timeout_seconds >= 0, "timeout_seconds", "0 or more")
        self.require(self.stop_seconds > 0, "stop_seconds", "above 0")
        for name in ("dist_url", "dist_backend", "torchcompile_backend"):
            self.require(getattr(self, name) != "", name, "text that is not empty")
        for name in ("fsdp_no_reshard_after_forward", "fsdp_offload_cpu"):
            self.require(self.fsdp or not getattr(self, name), name, "False without fsdp, which it is about")
        self.require(not (self.fsdp and self.ddp_static_graph), "ddp_static_graph", "False with fsdp, which has no DDP")
        for name in ("torchcompile_backend", "torchcompile_mode"):
            self.require(self.torchcompile or getattr(self, name) is None, name, "None without torchcompile")
        self.require(
            self.torchcompile_mode is None or self.torchcompile_backend in (None, "inductor"),
            "torchcompile_mode",
            "None with another backend than inductor",
        )
