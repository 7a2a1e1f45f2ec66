"""Locked towers beside OpenCLIP 3.3's: what is trained, and what a run leaves alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import open_clip
import pytest
import torch

import clip_core
from clip_core.convert.openclip_writing import to_openclip_config
from clip_train import TrainConfig, train
from clip_train.initial import build_bundle
from clip_train.plan import prepare
from clip_train.trainer import fit, start

pytestmark = pytest.mark.parity

LOCKS: tuple[dict[str, Any], ...] = (
    {"lock_image": True},
    {"lock_image": True, "lock_image_unlocked_groups": 1},
    {"lock_image": True, "lock_image_unlocked_groups": 3},
    {"lock_text": True, "lock_text_freeze_layer_norm": True},
    {"lock_text": True, "lock_text_unlocked_layers": 2, "lock_text_freeze_layer_norm": True},
    {"lock_image": True, "lock_text": True, "lock_text_unlocked_layers": 1, "lock_text_freeze_layer_norm": True},
)


@pytest.mark.parametrize("fields", LOCKS)
def test_what_is_trained_is_what_open_clip_trains(fields: dict[str, Any]) -> None:
    ours = build_bundle(
        TrainConfig.of(model="tiny", train_data="a", precision="fp32", **fields), torch.device("cpu")
    ).model
    theirs = open_clip.CLIP(**to_openclip_config(ours.config)["model_cfg"])
    if "lock_image" in fields:
        theirs.lock_image_tower(fields.get("lock_image_unlocked_groups", 0), False)
    if "lock_text" in fields:
        theirs.lock_text_tower(fields.get("lock_text_unlocked_layers", 0), True)
    expected = {name: parameter.requires_grad for name, parameter in theirs.named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in ours.named_parameters()} == expected
    assert False in expected.values()


def test_norms_of_a_locked_text_tower_may_be_trained() -> None:
    """open_clip 3.3 refuses this for towers of its own; it is what the flag's absence says."""
    config = TrainConfig.of(model="tiny", train_data="a", precision="fp32", lock_text=True)
    model = build_bundle(config, torch.device("cpu")).model
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    text = {name for name in trained if not name.startswith(("visual.", "logit_"))}
    assert text
    assert all("ln_" in name for name in text)


def test_lit_trains_the_text_tower_alone(make_config: Callable[..., TrainConfig]) -> None:
    """A locked tower is left as it is, has no gradient and keeps nothing for one."""
    config = make_config(lock_image=True, epochs=2)
    running = start(prepare(config))
    model = running.plan.bundle.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kept: list[bool] = []
    model.visual.register_forward_hook(lambda module, given, output: kept.append(output.requires_grad))
    fit(running)
    assert kept
    assert not any(kept), "no graph was built through the image tower"
    assert all(parameter.grad is None for parameter in model.visual.parameters())
    held = {id(p) for group in running.optimizer.param_groups for p in group["params"]}
    assert not held & {id(parameter) for parameter in model.visual.parameters()}
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("visual."), name


@pytest.mark.parametrize("frozen", [False, True])
def test_statistics_of_locked_batch_norms_stay_where_it_is_asked_for(
    make_config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch, frozen: bool
) -> None:
    image: Any = clip_core.get_config("convnext_base").image
    image = dataclasses.replace(image, name="test_resnet", image_size=32, drop_path=None)
    held = dataclasses.replace(clip_core.get_config("tiny"), image=image, layout="nested")
    monkeypatch.setattr(clip_core, "get_config", lambda name: held)
    config = make_config(lock_image=True, lock_image_freeze_bn_stats=frozen, accum_freq=2)
    running = start(prepare(config))
    model = running.plan.bundle.model
    before = {name: value.clone() for name, value in model.state_dict().items() if "running_" in name}
    assert before
    fit(running)
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) == frozen for name, value in before.items())


def test_a_run_with_partly_locked_towers_leaves_a_bundle(make_config: Callable[..., TrainConfig]) -> None:
    config = make_config(
        lock_image=True, lock_image_unlocked_groups=1, lock_text=True, lock_text_unlocked_layers=1, accum_freq=2
    )
    result = train(config)
    torch.manual_seed(config.run.seed)
    before = clip_core.create_model("tiny").state_dict()
    after = clip_core.load(result.bundle).model.state_dict()
    assert not torch.equal(after["visual.proj"], before["visual.proj"])
    assert not torch.equal(after["text_projection"], before["text_projection"])
    assert torch.equal(after["visual.conv1.weight"], before["visual.conv1.weight"])
    assert torch.equal(after["token_embedding.weight"], before["token_embedding.weight"])


def test_recomputing_blocks_changes_no_update(make_config: Callable[..., TrainConfig]) -> None:
    found = []
    for recompute in (False, True):
        running = start(prepare(make_config(grad_checkpointing=recompute, force_patch_dropout=0.5)))
        fit(running)
        found.append(running.plan.bundle.model.state_dict())
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-5, atol=1e-7, msg=name)
