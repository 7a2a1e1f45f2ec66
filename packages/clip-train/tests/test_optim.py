from __future__ import annotations

import math

import torch
from torch import nn

import clip_core
from clip_train import OptimConfig
from clip_train.optim import build_optimizer, clamp_logit_scale, has_weight_decay, set_learning_rate


def test_what_decays_in_a_clip_model() -> None:
    model = clip_core.create_model("tiny", device="meta")
    decays = {name for name, parameter in model.named_parameters() if has_weight_decay(name, parameter)}
    assert {
        "token_embedding.weight",
        "positional_embedding",
        "text_projection",
        "visual.conv1.weight",
        "visual.proj",
        "visual.transformer.resblocks.0.attn.in_proj_weight",
        "transformer.resblocks.1.mlp.c_fc.weight",
    } <= decays
    assert not {name for name in decays if "ln_" in name or "bias" in name}
    assert not decays & {"logit_scale", "visual.class_embedding"}


def test_groups_hold_every_trainable_parameter_once() -> None:
    model = clip_core.create_model("tiny")
    model.visual.conv1.weight.requires_grad_(False)
    config = OptimConfig(wd=0.3, lr=0.02, beta1=0.8, beta2=0.7, eps=1e-3)
    optimizer = build_optimizer(model, config)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.3]
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"], group["eps"]) == (0.02, (0.8, 0.7), 1e-3)
    set_learning_rate(optimizer, 0.5)
    assert {group["lr"] for group in optimizer.param_groups} == {0.5}


def test_the_logit_scale_stays_between_one_and_a_hundred() -> None:
    for value, expected in ((-1.0, 0.0), (3.0, 3.0), (9.0, math.log(100))):
        scale = nn.Parameter(torch.tensor(value))
        clamp_logit_scale(scale)
        assert scale.item() == torch.tensor(expected).item()
