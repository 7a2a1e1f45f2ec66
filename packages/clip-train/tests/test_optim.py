from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

import clip_core
from clip_core.errors import ConfigError
from clip_train import OptimConfig, TrainConfig
from clip_train.optim import build_optimizer, clamp_logit_scale, set_learning_rate, take_step

OPTIMISERS = (
    "adamw",
    "nadamw",
    "timm/sgd",
    "timm/lion",
    "timm/lamb",
    "timm/muon",
    "timm/adafactorbv",
    "timm/madgrad",
    "timm/lookahead_lion",
)


def config_of(opt: str, **fields: object) -> OptimConfig:
    return TrainConfig.of(model="tiny", train_data="a.tar", opt=opt, **fields).optim


def small() -> clip_core.Clip:
    torch.manual_seed(0)
    return clip_core.create_model("tiny")


def put_gradients(model: nn.Module, seed: int, *, value: float | None = None) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        parameter.grad = drawn if value is None else torch.full_like(drawn, value)


def same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def test_groups_hold_every_trainable_parameter_once() -> None:
    model = clip_core.create_model("tiny")
    model.visual.conv1.weight.requires_grad_(False)  # type: ignore[union-attr]
    config = OptimConfig(wd=0.3, lr=0.02, beta1=0.8, beta2=0.7, eps=1e-3)
    optimizer = build_optimizer(model, config)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.3]
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"], group["eps"]) == (0.02, (0.8, 0.7), 1e-3)
    set_learning_rate(optimizer, 0.5)
    assert {group["lr"] for group in optimizer.param_groups} == {0.5}


@pytest.mark.parametrize("opt", OPTIMISERS)
def test_a_refused_update_leaves_nothing_behind(opt: str) -> None:
    """A step that is not admitted is as if it had not been, be it the first or a later one."""
    model = small()
    calm = copy.deepcopy(model)
    config = config_of(opt, lr=1e-3)
    optimizer, other = build_optimizer(model, config), build_optimizer(calm, config)
    for seed in (1, 2, 3):
        put_gradients(model, seed, value=math.nan)
        take_step(optimizer, torch.tensor(False))
        for one, its in ((model, optimizer), (calm, other)):
            put_gradients(one, seed)
            take_step(its, torch.tensor(True))
    assert same(model.state_dict(), calm.state_dict())
    assert same(optimizer.state_dict(), other.state_dict())
    assert not same(model.state_dict(), small().state_dict()), "the admitted updates were applied"


def test_the_share_of_a_layer_is_of_every_learning_rate() -> None:
    optimizer = build_optimizer(small(), config_of("adamw", lr=0.4, text_layer_decay=0.5))
    for rate in (0.4, 0.1):
        set_learning_rate(optimizer, rate)
        assert {group["lr"] for group in optimizer.param_groups} == {
            rate * group["lr_scale"] for group in optimizer.param_groups
        }
        assert max(group["lr"] for group in optimizer.param_groups) == rate


def test_a_layer_with_a_small_share_moves_less() -> None:
    """AdamW's first update is its learning rate in size, whatever the gradient."""
    model, before = small(), small()
    optimizer = build_optimizer(model, config_of("adamw", lr=1e-2, wd=0.0, image_layer_decay=0.1))
    put_gradients(model, 1)
    take_step(optimizer, torch.tensor(True))
    moved = {
        name: (after - old).abs().median().item()
        for (name, after), (_, old) in zip(model.named_parameters(), before.named_parameters(), strict=True)
    }
    layers = len(model.visual.transformer.resblocks)  # type: ignore[arg-type,union-attr]
    assert moved["visual.proj"] == pytest.approx(1e-2, rel=1e-3)
    assert moved["visual.conv1.weight"] == pytest.approx(1e-2 * 0.1 ** (layers + 1), rel=2e-2)
    assert moved["text_projection"] == pytest.approx(1e-2, rel=1e-3)


def test_arguments_reach_the_optimiser() -> None:
    assert build_optimizer(small(), config_of("adamw", opt_kwargs=(("amsgrad", True),))).defaults["amsgrad"]
    sgd = build_optimizer(small(), config_of("timm/sgd", momentum=0.3))
    assert sgd.defaults["momentum"] == 0.3
    lion = build_optimizer(small(), config_of("timm/lion", beta1=0.8, beta2=0.7))
    assert lion.defaults["betas"] == (0.8, 0.7)
    nadam = build_optimizer(small(), config_of("nadamw"))
    assert isinstance(nadam, torch.optim.NAdam)
    assert nadam.defaults["decoupled_weight_decay"]


def test_muon_leaves_what_is_named_to_adamw() -> None:
    model = small()
    optimizer = build_optimizer(
        model, config_of("timm/muon", opt_fallback_list=("token_embedding.*", "text_projection", "visual.proj"))
    )
    fallen = {id(p) for group in optimizer.param_groups if group.get("use_fallback") for p in group["params"]}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in fallen}
    assert names == {"token_embedding.weight", "text_projection", "visual.proj"}
    put_gradients(model, 1)
    take_step(optimizer, torch.tensor(True))
    # Muon keeps one buffer per parameter, AdamW two and a count.
    by_name = {name: set(optimizer.state[parameter]) for name, parameter in model.named_parameters()}
    assert "exp_avg_sq" in by_name["visual.proj"]
    assert "exp_avg_sq" not in by_name["visual.transformer.resblocks.0.mlp.c_fc.weight"]


def test_what_cannot_be_made_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="timm/lion"):
        build_optimizer(small(), config_of("timm/lyon"))
    with pytest.raises(ConfigError, match="nesterof"):
        build_optimizer(small(), config_of("adamw", opt_kwargs=(("nesterof", True),)))
    model = small().requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing to train"):
        build_optimizer(model, config_of("adamw"))
    for fields in (
        {"opt": "adamv"},
        {"opt": "adamw", "momentum": 0.9},
        {"opt": "timm/lion", "beta2": 0.9},
        {"opt": "adamw", "opt_fallback_list": ("*",)},
        {"opt": "adamw", "image_layer_decay": 1.5},
        {"opt": "adamw", "text_pooler_own_group": True},
        {"opt": "adamw", "lr_scheduler": "const-cooldown"},
        {"opt": "adamw", "epochs": 2, "epochs_cooldown": 3},
        {"opt": "adamw", "ema_every": 2},
    ):
        with pytest.raises(ConfigError):
            config_of(**fields)  # type: ignore[arg-type]


def test_the_logit_scale_stays_between_one_and_a_hundred() -> None:
    for value, expected in ((-1.0, 0.0), (3.0, 3.0), (9.0, math.log(100))):
        scale = nn.Parameter(torch.tensor(value))
        clamp_logit_scale(scale)
        assert scale.item() == torch.tensor(expected).item()


def test_weights_on_another_device_get_the_answer_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device without numbers stands for the one that the optimiser would copy to without waiting."""
    read: list[torch.device] = []
    for devices, expected in ((("cpu", "cpu"), "cpu"), (("cpu", "meta"), "meta")):
        optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(2, device=device)) for device in devices])
        optimizer.param_groups[0]["fused"] = True
        monkeypatch.setattr(optimizer, "step", lambda held=optimizer: read.append(held.found_inf.device))
        take_step(optimizer, torch.tensor(True))
        assert read[-1].type == expected
