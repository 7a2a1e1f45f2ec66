"""Where a run happens and what it is called: `RunConfig`."""

from __future__ import annotations

import dataclasses
from typing import Literal

from clip_core.schema import Schema
from clip_train.config.flag import flag

__all__ = ["RunConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig(Schema):
    """Where and how exactly it runs, and what it leaves behind."""

    device: str = flag("auto", help="cpu, cuda or cuda:N; auto takes cuda where there is one")
    precision: Literal["amp_bf16", "amp", "fp32", "bf16", "fp16", "pure_bf16", "pure_fp16"] = flag(
        "amp_bf16",
        help="arithmetic: fp32 throughout; bfloat16 (amp_bf16, amp_bfloat16) or float16 with a scaled loss (amp) in "
        "matrix products; weights in bf16 or fp16 but for norms, or all of them (pure_bf16, pure_fp16)",
    )
    no_set_device_rank: bool = flag(
        False, help="every process takes the device as it is named: for launchers that show each only its own GPU"
    )
    seed: int = flag(0, help="start of every random choice: initial weights, order, augmentation")
    logs: str = flag("./logs/", help="folder that holds the run folders")
    name: str | None = flag(None, help="name of the run folder; not given: date, model, lr, batch size ...")

    remote_sync: str | None = flag(
        None, help="copy the run folder to this place, s3://bucket/runs or another address, while it grows"
    )
    remote_sync_frequency: int = flag(300, help="seconds between two copies")
    remote_sync_protocol: Literal["s3", "fsspec"] = flag(
        "s3", help="how to copy: with the program aws, or with fsspec, which knows many kinds of storage"
    )

    guard_spike: float | None = flag(
        None,
        help="skip a step whose gradient norm lies so many standard deviations above the recent ones (of its "
        "logarithm); say 6; not given: only what is not finite is skipped",
    )
    guard_rollbacks: int = flag(
        3, help="so often training goes back to the last checkpoint, past the data, after ten skipped steps in a row"
    )

    def check(self) -> None:
        self.require(self.guard_spike is None or self.guard_spike > 0, "guard_spike", "above 0, or None")
        self.require(self.guard_rollbacks >= 0, "guard_rollbacks", "0 or more")
        self.require(self.remote_sync_frequency >= 1, "remote_sync_frequency", "1 or more seconds")
        self.require(self.remote_sync is None or bool(self.remote_sync.strip()), "remote_sync", "an address, or None")
        self.require(0 <= self.seed < 2**63, "seed", "0 or more and below 2**63")
        self.require(
            self.logs.strip() not in ("", "None"), "logs", "a folder; a run always writes its metrics and its bundle"
        )
        plain = self.name is None or (self.name.strip() not in ("", ".", "..") and not set(self.name) & set("/\\\0"))
        self.require(plain, "name", "the name of a folder, without slashes")
