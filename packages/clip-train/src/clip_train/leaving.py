"""The bundles that a finished run leaves: the model, its mean over the steps, and adapters beside their sum.

What this room leaves out: checkpoints to go on from (`checkpoint`).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import clip_core
from clip_train import lora
from clip_train.parallel import whole_bundle
from clip_train.run_folder import RunFolder
from clip_train.trainer import Running

__all__ = ["ADAPTERS", "AVERAGE", "leave_bundles"]

AVERAGE = "bundle-ema"
"""The bundle with the mean of the weights, in float32."""
ADAPTERS = "adapters"
"""The folder with what LoRA trained, as peft reads it."""


def leave_bundles(running: Running, folder: RunFolder) -> None:
    """Write all that the flags ask for into the run's folder; every process calls it."""
    _leave(running, folder.bundle)
    if running.average is not None:
        with running.average.applied():
            _leave(running, folder.path / AVERAGE)


def _leave(running: Running, target: Path) -> None:
    plan = running.plan
    whole = whole_bundle(plan.bundle, plan.world)

    def save() -> None:
        assert whole is not None
        bundle = whole
        if lora.has_adapters(bundle.model):
            lora.save_adapters(bundle.model, target.with_name(target.name.replace("bundle", ADAPTERS)))
            bundle = dataclasses.replace(bundle, model=lora.merged(bundle.model))
        clip_core.save(bundle, target, overwrite=True)

    plan.world.first_does(save)
