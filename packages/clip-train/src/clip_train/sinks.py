"""Where numbers can be sent beside `metrics.jsonl`: tensorboard, wandb, trackio. None of them may end a training.

Names are open_clip's ("train/loss", "val/image_to_text_R@1"), the step is the optimiser's. A sink that is not
installed, has no login or loses its network is named in the log, once, and gets nothing more. A run that goes on does
so in the same run of each service. Steps that are taken once more, after a checkpoint or going back, replace the first
ones in tensorboard; wandb keeps the first and trackio both. What this room leaves out: what is sent, and how often
(`recording`).
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import re
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from clip_train.config import TrainConfig

__all__ = ["Sink", "Sinks", "open_sinks"]

_log = logging.getLogger(__name__)


class Sink(Protocol):
    """One service; whatever it raises is dealt with by `Sinks`."""

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of one step."""
        ...

    def close(self) -> None:
        """The run has ended."""
        ...


class Sinks:
    """Those that still work."""

    def __init__(self, sinks: Mapping[str, Sink]) -> None:
        self._sinks = dict(sinks)

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Send finite numbers to all of them."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        for name in list(self._sinks):
            self._try(name, lambda sink: sink.add(finite, step))

    def close(self) -> None:
        """Let all of them finish."""
        for name in list(self._sinks):
            self._try(name, lambda sink: sink.close())
        self._sinks.clear()

    def _try(self, name: str, work: Callable[[Sink], None]) -> None:
        try:
            work(self._sinks[name])
        except Exception as error:
            _say(name, error)
            del self._sinks[name]


def open_sinks(config: TrainConfig, folder: Path, *, step: int = 0) -> Sinks:
    """Those that `--report-to` names and that can be had; of the others the log says why not.

    step: where the run stands that goes on in `folder`; what was sent of later ones is history.
    """
    found: dict[str, Sink] = {}
    for name in config.logging.sinks:
        try:
            found[name] = _OPENERS[name](config, folder, step)
        except (Exception, SystemExit) as error:
            _say(name, error)
    return Sinks(found)


def _say(name: str, error: BaseException) -> None:
    hint = ""
    if isinstance(error, ImportError):
        hint = f" (pip install 'clip-train[{name}]')"
    words = str(error).strip().splitlines()[:1] or [type(error).__name__]
    _log.warning("%s gets nothing more: %s%s; metrics.jsonl has all of it, the training goes on", name, words[0], hint)


class _Tensorboard:
    def __init__(self, config: TrainConfig, folder: Path, step: int) -> None:
        # torch's own writer needs the package; asked first, it is what the error names where it is missing.
        importlib.import_module("tensorboard")
        self._folder, self._step = str(folder / "tensorboard"), step
        self._writer = self._open()

    def _open(self) -> Any:
        """A writer that takes back what an earlier one wrote of the steps from the next one on."""
        writer: Any = importlib.import_module("torch.utils.tensorboard")
        return writer.SummaryWriter(self._folder, purge_step=self._step + 1)

    def add(self, values: Mapping[str, float], step: int) -> None:
        if step < self._step:
            self._writer.close()
            self._step = step - 1
            self._writer = self._open()
        self._step = step
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, config: TrainConfig, folder: Path, step: int) -> None:
        wandb = importlib.import_module("wandb")
        offline = os.environ.get("WANDB_MODE", "online") != "online"
        if not offline and not wandb.login(prompt=False):
            # Asking for it would wait for an answer that nobody gives in the night.
            raise RuntimeError("no login; run `wandb login`, or set WANDB_MODE=offline")
        name = str(config.run.name)
        self._run = wandb.init(
            project=config.logging.wandb_project_name,
            name=name,
            # The same run where it is resumed; ids may not hold these.
            id=re.sub(r"[/\\#?%:]", "-", name),
            resume="allow",
            notes=config.logging.wandb_notes or None,
            config=config.fields() | {"aug_cfg": config.data.aug_cfg.to_json()},
            dir=str(folder),
        )

    def add(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _Trackio:
    def __init__(self, config: TrainConfig, folder: Path, step: int) -> None:
        self._trackio: types.ModuleType = importlib.import_module("trackio")
        self._trackio.init(
            project=config.logging.wandb_project_name,
            name=str(config.run.name),
            resume="allow",
            config=config.fields() | {"aug_cfg": config.data.aug_cfg.to_json()},
        )

    def add(self, values: Mapping[str, float], step: int) -> None:
        self._trackio.log(dict(values), step=step)

    def close(self) -> None:
        self._trackio.finish()


_OPENERS: dict[str, Callable[[TrainConfig, Path, int], Sink]] = {
    "tensorboard": _Tensorboard,
    "wandb": _Wandb,
    "trackio": _Trackio,
}
