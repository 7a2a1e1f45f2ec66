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
    precision: Literal["fp32", "amp_bf16"] = flag(
        "amp_bf16", help="arithmetic: fp32 throughout, or bfloat16 in matrix products (amp_bfloat16 is the same)"
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

    def check(self) -> None:
        self.require(self.remote_sync_frequency >= 1, "remote_sync_frequency", "1 or more seconds")
        self.require(self.remote_sync is None or bool(self.remote_sync.strip()), "remote_sync", "an address, or None")
        self.require(0 <= self.seed < 2**63, "seed", "0 or more and below 2**63")
        self.require(
            self.logs.strip() not in ("", "None"), "logs", "a folder; a run always writes its metrics and its bundle"
        )
        plain = self.name is None or (self.name.strip() not in ("", ".", "..") and not set(self.name) & set("/\\\0"))
        self.require(plain, "name", "the name of a folder, without slashes")
