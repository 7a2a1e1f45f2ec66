"""What becomes of each step's numbers: `metrics.jsonl`, the log, tensorboard and its kin, and the sums for the end.

`Recording` is handed every record of the loop, on every process; the first one writes. What this room leaves out:
where the numbers come from (`trainer`, `measuring`).
"""

from __future__ import annotations

import logging
import math
import os
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import torch

from clip_train.cores import own_cores
from clip_train.measuring.pace import Pace
from clip_train.measuring.speed import Cost, count_cost, find_peak, peak_memory
from clip_train.measuring.split import Split, advise, describe
from clip_train.plan import Plan
from clip_train.sinks import Sinks

__all__ = ["FadingMean", "Recording", "duration", "find_cost"]

_log = logging.getLogger(__name__)

_PACKAGES = ("clip-train", "clip-eval", "clip-hub", "clip-core", "torch", "numpy", "pillow")

# open_clip's name of a number -> ours; whatever else is sent has our name.
_SENT = {
    "train/loss": "loss",
    "train/lr": "lr",
    "train/scale": "logit_scale",
    "train/data_time": "data_seconds",
    "train/batch_time": "step_seconds",
    "train/samples_per_second": "samples_per_second",
    "train/grad_norm": "grad_norm",
    "train/mfu": "mfu",
    "train/skipped_samples": "skipped_samples",
}


class FadingMean:
    """A mean in which a sample counts the less the more have come after it."""

    def __init__(self, horizon: int) -> None:
        self._horizon = horizon
        self._sum = 0.0
        self._weight = 0.0

    def add(self, value: float, samples: int) -> None:
        """The mean of `samples` more; what is not finite is left out."""
        if not self._horizon or not math.isfinite(value):
            return
        kept = math.exp(-samples / self._horizon)
        self._sum = kept * self._sum + (1 - kept) * value
        self._weight = kept * self._weight + (1 - kept)

    @property
    def value(self) -> float | None:
        """None before the first sample, or without a horizon."""
        return self._sum / self._weight if self._weight else None


class Recording:
    """Takes the records of a run.

    Attributes:
        split: sums over all steps but the first, in which much happens for the only time.
        pace: the service that compares the processes.
        write: what the first process calls with each record.
        sinks: what the first process sends numbers to.
    """

    def __init__(self, plan: Plan, cost: Cost | None = None) -> None:
        """`cost` is that of a pair, see `find_cost`; the first process needs it."""
        config = plan.config
        self.split = Split()
        self.pace = Pace(self.split, config.logging.log_every_n_steps)
        self.write: Callable[[dict[str, Any]], None] = lambda record: None
        self.sinks = Sinks({})
        self._plan = plan
        self._mean = FadingMean(config.logging.train_loss_ema_samples)
        self._since = Split()
        self._said = self.pace.latest
        self._cost = cost
        self._peak = _peak_of(plan)
        self._begun = False

    def __call__(self, record: dict[str, Any]) -> None:
        """One step."""
        plan = self._plan
        if self._begun:
            self.split.add(record)
            self._since.add(record)
        self._begun = True
        if not plan.world.is_first:
            return
        achieved = self._achieved(record)
        if achieved is not None and self._peak is not None:
            record = {**record, "mfu": achieved / self._peak}
        if self.pace.latest is not self._said and self.pace.latest is not None:
            self._said = self.pace.latest
            record = {**record, **self._said.record()}
        self.write(record)
        self._mean.add(record["loss"], record["batch"])
        number, logging_config = record["step"], plan.config.logging
        last = number == plan.total_steps
        if number % logging_config.log_metric_every_n_steps == 0 or last:
            self.sinks.add(_sent(record, plan.world.size), number)
        if number % logging_config.log_every_n_steps == 0 or number == 1 or last:
            _log.info("%s", self._line(record, achieved))
            self._since = Split()

    def summary(self) -> dict[str, Any]:
        """What `summary.json` says of the time."""
        found: dict[str, Any] = {
            "time": self.split.to_json(),
            "advice": self.advice(),
            "peak_memory_bytes": peak_memory(self._plan.device),
            "device": _device_name(self._plan.device),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        }
        if self.pace.latest is not None:
            found["processes_seconds"] = self.pace.latest.seconds
        return found

    def advice(self) -> list[str]:
        """What the split means, in words."""
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        cores = own_cores()
        return advise(self.split, self._plan.config, cores=max(1, cores // here))

    def say(self) -> None:
        """Write the table and what it means into the log."""
        lines = describe(self.split)
        if lines:
            _log.info("where the time of %d steps went\n%s", self.split.steps, "\n".join(lines))
        for sentence in self.advice():
            _log.info("%s", sentence)
        if self.pace.latest is not None:
            _log.info("%s", self.pace.latest.describe())

    def _achieved(self, record: Mapping[str, Any]) -> float | None:
        """Operations per second of this process's device."""
        if self._cost is None or "text_tokens" not in record:
            return None
        pairs: float = record["batch"] / self._plan.world.size
        seconds: float = record["step_seconds"]
        return self._cost.of(record["text_tokens"], record.get("seq_len")) * pairs / seconds

    def _line(self, record: Mapping[str, Any], achieved: float | None) -> str:
        plan, since = self._plan, self._since
        number = record["step"]
        whole = since.seconds or record["step_seconds"]
        speed = (since.samples or record["batch"]) / whole
        parts = [f"step {number} of {plan.total_steps}", f"loss {record['loss']:.5g}"]
        if self._mean.value is not None:
            parts[-1] += f" (mean {self._mean.value:.5g})"
        parts += [
            f"lr {record['lr']:.3g}",
            f"logit scale {record['logit_scale']:.3f}",
            f"gradient norm {record['grad_norm']:.3g}",
            f"{speed:.0f} samples/s",
        ]
        if since.steps:
            parts.append(f"{100 * since.share('wait'):.0f} % waiting for data")
        if achieved is not None:
            parts.append(
                f"{achieved / 1e12:.3g} TFLOP/s" if self._peak is None else f"MFU {100 * achieved / self._peak:.1f} %"
            )
        parts.append(f"{peak_memory(plan.device) / 1e9:.2f} GB")
        left = (plan.batching.samples(plan.total_steps) - plan.batching.samples(number)) / speed
        return ", ".join([*parts, f"{duration(left)} left"])


def _sent(record: Mapping[str, Any], processes: int) -> dict[str, float]:
    """The numbers of a record under open_clip's names; a loss of one part is its own part there."""
    parts = {f"train/{name}": value for name, value in record.items() if name.endswith("_loss")}
    return {
        **{name: record[own] for name, own in _SENT.items() if own in record},
        "train/samples_per_second_per_gpu": record["samples_per_second"] / processes,
        **(parts or {"train/contrastive_loss": record["loss"]}),
    }


def find_cost(plan: Plan) -> Cost | None:
    """What a pair costs, on the first process; it has to be asked before the model is spread over the processes."""
    if not plan.world.is_first:
        return None
    try:
        return count_cost(plan.bundle)
    except Exception as error:
        # What the run uses of its device is good to know; not knowing it is no reason not to train.
        _log.info("the operations of a step cannot be counted: %s", error)
        return None


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {platform.machine()}"


def _peak_of(plan: Plan) -> float | None:
    if plan.device.type != "cuda":
        return None
    tf32 = torch.get_float32_matmul_precision() != "highest"
    return find_peak(torch.cuda.get_device_name(plan.device), plan.config.run.precision, tf32=tf32)


def duration(seconds: float) -> str:
    """As people say it: "40 s", "12 min", "3 h 20 min", "2 d 4 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {rest} min"
    return f"{hours // 24} d {hours % 24} h"
