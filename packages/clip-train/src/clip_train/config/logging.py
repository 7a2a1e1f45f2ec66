"""What a run says of itself: `LoggingConfig`."""

from __future__ import annotations

import dataclasses

from clip_core.schema import Schema
from clip_train.config.flag import flag

__all__ = ["LoggingConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LoggingConfig(Schema):
    """Logs and trackers."""

    log_every_n_steps: int = flag(100, help="steps between two lines of the log")
    debug: bool = flag(False, help="log more")

    def check(self) -> None:
        self.require(self.log_every_n_steps >= 1, "log_every_n_steps", "1 or more")
