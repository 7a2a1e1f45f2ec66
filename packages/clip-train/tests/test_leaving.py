"""The bundles of a run, and that what makes them is in its checkpoints: a run that goes on leaves the same ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import clip_core
import clip_core.presets
from clip_core.presets.parts import model, text_tower
from clip_core.presets.vit import image_tower
from clip_train import TrainConfig, train
from clip_train.leaving import ADAPTERS, AVERAGE

Make = Callable[..., TrainConfig]


@pytest.fixture(autouse=True)
def smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    small = model(16, image_tower(32, 16, 16, 1, 2, 32), text_tower(8, 2, 1, context_length=32))
    monkeypatch.setitem(clip_core.presets._PRESETS, "tiny", small)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return clip_core.load(folder).model.state_dict()


CASES: tuple[dict[str, Any], ...] = (
    {"precision": "amp", "ema_decay": 0.6, "opt": "nadamw"},
    {"opt": "timm/lion", "lr": 1e-4, "ema_decay": 0.6, "ema_every": 2, "image_layer_decay": 0.8},
    {"opt": "timm/muon", "precision": "bf16", "lock_text": True, "wd_exclude": ("visual.proj",)},
    {"lora_rank": 2, "ema_decay": 0.6, "lora_towers": "image"},
)


@pytest.mark.parametrize("fields", CASES, ids=lambda fields: str(next(iter(fields.values()))))
def test_a_run_that_goes_on_leaves_what_one_that_never_stopped_leaves(
    make_config: Make, fields: dict[str, Any]
) -> None:
    if "lora_rank" in fields:
        pytest.importorskip("peft")
    fields = {"lr_scheduler": "const", "force_patch_dropout": 0.5, "precision": "fp32", **fields}
    whole = train(make_config(name="whole", epochs=2, **fields))
    train(make_config(name="mine", **fields))
    again = train(make_config(name="mine", epochs=2, resume="latest", **fields))
    assert (again.steps, whole.steps) == (10, 10)
    for name in ("bundle", AVERAGE) if "ema_decay" in fields else ("bundle",):
        expected, found = weights(whole.folder / name), weights(again.folder / name)
        assert expected.keys() == found.keys()
        assert all(torch.equal(value, found[key]) for key, value in expected.items()), name
    assert (again.folder / AVERAGE).exists() == ("ema_decay" in fields)
    assert (again.folder / ADAPTERS / "image").exists() == ("lora_rank" in fields)
