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
    seed: int = flag(0, help="start of every random choice: initial weights, order, augmentation")
    logs: str = flag("./logs/", help="folder that holds the run folders")
    name: str | None = flag(None, help="name of the run folder; not given: date, model, lr, batch size ...")

    def check(self) -> None:
        self.require(0 <= self.seed < 2**63, "seed", "0 or more and below 2**63")
        self.require(
            self.logs.strip() not in ("", "None"), "logs", "a folder; a run always writes its metrics and its bundle"
        )
        plain = self.name is None or (self.name.strip() not in ("", ".", "..") and not set(self.name) & set("/\\\0"))
        self.require(plain, "name", "the name of a folder, without slashes")
