"""The bundles that a finished run leaves: the model, its mean over the steps, and adapters beside their sum.

What this room leaves out: checkpoints to go on from (`checkpoint`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

import clip_core
from clip_core.building import lay_out
from clip_train import lora
from clip_train.parallel import whole_weights
from clip_train.run_folder import RunFolder
from clip_train.trainer import Running

__all__ = ["ADAPTERS", "AVERAGE", "leave_bundles"]

AVERAGE = "bundle-ema"
"""The bundle with the mean of the weights, in float32."""
ADAPTERS = "adapters"
"""The folder with what LoRA trained, as peft reads it."""


def leave_bundles(running: Running, folder: RunFolder) -> None:
    """Write all that the flags ask for into the run's folder; every process calls it."""
    _leave(running, folder.bundle, {})
    if running.average is not None:
        _leave(running, folder.path / AVERAGE, running.average.state_dict())


def _leave(running: Running, target: Path, means: Mapping[str, Tensor]) -> None:
    """`means` are written in place of the weights of these names, and everything in float32 then."""
    plan = running.plan
    model, given = plan.bundle.model, plan.config.model
    weights = whole_weights(model, plan.world, means)

    def save() -> None:
        found = weights or {}
        if means:
            found = {name: value.float() if value.is_floating_point() else value for name, value in found.items()}
        if given.lora_rank is not None:
            lora.save_adapters(model, found, target.with_name(target.name.replace("bundle", ADAPTERS)))
            found = lora.merged(found, lora.scaling(given.lora_rank, given.lora_alpha))
        plain = lay_out(plan.bundle.config)
        plain.load_state_dict(found, assign=True)
        clip_core.save(dataclasses.replace(plan.bundle, model=plain), target, overwrite=True)

    plan.world.first_does(save)
