"""What a run says of itself: `LoggingConfig`."""

from __future__ import annotations

import dataclasses

from clip_core.schema import Schema
from clip_train.config.flag import flag

__all__ = ["SINKS", "LoggingConfig"]

SINKS = ("tensorboard", "wandb", "trackio")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LoggingConfig(Schema):
    """Logs and trackers; `metrics.jsonl` has every step whatever is said here."""

    log_every_n_steps: int = flag(100, help="steps between two lines of the log")
    log_metric_every_n_steps: int = flag(10, help="steps between two values for tensorboard, wandb and trackio")
    train_loss_ema_samples: int = flag(
        50_000, help="samples that the average of the loss in the log looks back, fading; 0: no average"
    )
    log_local: bool = flag(False, help="every host writes a log, out-RANK.log, beside the first one's out.log")
    debug: bool = flag(False, help="log more")
    copy_codebase: bool = flag(False, help="copy the source of the four packages into the run folder, as code/")
    report_to: str = flag("", help="send the numbers to tensorboard, wandb, trackio, several with commas, or all")
    wandb_notes: str = flag("", help="notes of the run in wandb")
    wandb_project_name: str = flag("open-clip", help="project of the run in wandb and trackio")

    def check(self) -> None:
        self.require(self.log_every_n_steps >= 1, "log_every_n_steps", "1 or more")
        self.require(self.log_metric_every_n_steps >= 1, "log_metric_every_n_steps", "1 or more")
        self.require(self.train_loss_ema_samples >= 0, "train_loss_ema_samples", "0 or more")
        known = all(word in (*SINKS, "all") for word in self._words())
        self.require(known, "report_to", f"empty, all, or some of {', '.join(SINKS)} with commas between them")

    @property
    def sinks(self) -> tuple[str, ...]:
        """Whom `report_to` names, each once."""
        words = self._words()
        return SINKS if "all" in words else tuple(name for name in SINKS if name in words)

    def _words(self) -> list[str]:
        return [word.strip() for word in self.report_to.split(",") if word.strip()]
