"""Going on from a checkpoint of open_clip (`epoch_N.pt`): weights, AdamW's moments, the loss scaler, and the epoch.

Epochs are all that such a file knows of the data, so the run goes on at the beginning of one, in its own order. What
could not be taken is said. No code of the file runs. What this room leaves out: our own checkpoints (`resume`).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip_core.convert.checkpoint import placed
from clip_core.errors import CheckpointMismatch, ConfigError
from clip_core.weights import read_weights
from clip_train.checkpoint.state import load_model, load_optimizer
from clip_train.config import TrainConfig
from clip_train.param_groups import has_weight_decay
from clip_train.plan import Plan
from clip_train.trainer import Running
from clip_train.world import World

__all__ = ["ForeignOrigin"]

_log = logging.getLogger(__name__)

_MOMENTS = {"step", "exp_avg", "exp_avg_sq"}


@dataclasses.dataclass(frozen=True, slots=True)
class ForeignOrigin:
    """A file of open_clip that a run goes on from; looks like `resume.Origin`."""

    folder: Path
    """The file."""
    run_folder: Path | None = None
    step: int = 0

    def adopt(self, config: TrainConfig, world: World) -> TrainConfig:
        """`config` as it is: the file says nothing about batches."""
        return config

    def check(self, plan: Plan) -> None:
        """Nothing: the file says nothing about data."""

    def restore(self, running: Running) -> None:
        """Put the file into `running`. Raises `CheckpointMismatch`, or `ConfigError` for one that has no epoch."""
        plan, model = running.plan, running.plan.bundle.model
        tensors = placed(read_weights(self.folder, ema=False if self._has_average() else None), model.config)
        content = self._read()
        epoch = content.get("epoch")
        if not isinstance(epoch, int):
            raise ConfigError(f"{self.folder} does not say of which epoch it is; weights alone are for --pretrained.")
        wrong = next((name for name, value in tensors.items() if not value.isfinite().all()), None)
        if wrong is not None:
            raise CheckpointMismatch(
                f"{self.folder}: the weights {wrong} are not finite, so training had broken down before it was saved. "
                "Use an older file."
            )
        load_model(model, tensors, self.folder)
        state = running.state
        state.steps = plan.batching.steps(epoch * plan.per_epoch)
        state.samples_seen = plan.batching.samples(state.steps)
        missing = [word for word in (self._take_optimizer(running, content, list(tensors)),) if word is not None]
        scaler = running.parts.get("scaler")
        if scaler is not None and isinstance(content.get("scaler"), dict):
            scaler.load_state_dict(content["scaler"])
        elif scaler is not None:
            missing.append("the loss scaler begins anew")
        if "average" in running.parts:
            missing.append("the average of the weights begins with these weights")
        if plan.world.is_first:
            _log.info(
                "going on after epoch %d of %s, step %d of %d; the order of samples is clip-train's",
                epoch,
                self.folder,
                state.steps,
                plan.total_steps,
            )
            for word in missing:
                _log.warning("%s: %s", self.folder, word)

    def _read(self) -> dict[str, Any]:
        # read_weights has said what is wrong with a file that cannot be read.
        content = torch.load(self.folder, map_location="cpu", weights_only=True)
        return content if isinstance(content, dict) else {}

    def _has_average(self) -> bool:
        return isinstance(self._read().get("state_dict_ema"), dict) if self.folder.is_file() else False

    def _take_optimizer(self, running: Running, content: Mapping[str, Any], names: list[str]) -> str | None:
        """Put the moments in; gives why they could not be."""
        held = content.get("optimizer")
        if not isinstance(held, dict) or not held.get("state"):
            return "it holds no optimiser, which begins anew"
        own = running.optimizer.state_dict()
        if type(running.optimizer).__name__ != "AdamW" or any(set(s) != _MOMENTS for s in held["state"].values()):
            return "its optimiser is another, which begins anew"
        # Moments that are no numbers would make weights that are none, at the first step.
        if not all(torch.as_tensor(value).isfinite().all() for s in held["state"].values() for value in s.values()):
            return "its optimiser holds numbers that are not finite, and begins anew"
        theirs = _in_groups_of_open_clip(running, names)
        numbers = [number for group in held["param_groups"] for number in group["params"]]
        parameters = dict(running.plan.bundle.model.named_parameters())
        fits = len(numbers) == len(theirs) and all(
            number not in held["state"] or held["state"][number]["exp_avg"].shape == parameters[name].shape
            for number, name in zip(numbers, theirs, strict=True)
        )
        if not fits:
            return "its optimiser has other parameters or groups, and begins anew"
        by_name: dict[str, dict[str, Tensor]] = {
            name: held["state"][number] for number, name in zip(numbers, theirs, strict=True) if number in held["state"]
        }
        name_of = {id(parameter): name for name, parameter in parameters.items()}
        ours = [name_of[id(parameter)] for group in running.optimizer.param_groups for parameter in group["params"]]
        state = {number: by_name[name] for number, name in enumerate(ours) if name in by_name}
        load_optimizer(running.optimizer, {**own, "state": state})
        return None


def _in_groups_of_open_clip(running: Running, names: list[str]) -> list[str]:
    """The trainable parameters in the order in which open_clip 3.3 hands them to AdamW: first those without decay.

    names: of all tensors, in the order of its model, which is that of the file.
    """
    parameters = {name: p for name, p in running.plan.bundle.model.named_parameters() if p.requires_grad}
    known = [name for name in names if name in parameters]
    if len(known) != len(parameters):
        raise CheckpointMismatch(f"The weights lack {min(parameters.keys() - set(known))}.")
    return [name for decays in (False, True) for name in known if has_weight_decay(name, parameters[name]) is decays]
