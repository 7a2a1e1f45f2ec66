"""Optimisers beside open_clip's: the same groups and the same updates, from the same weights and gradients."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
from timm.optim import create_optimizer_v2
from torch import optim

import clip_core
from clip_core.convert.openclip_writing import to_openclip_config
from clip_train import TrainConfig
from clip_train.optim import build_optimizer, take_step

pytestmark = pytest.mark.parity


def both() -> tuple[clip_core.Clip, Any]:
    torch.manual_seed(0)
    ours = clip_core.create_model("tiny")
    theirs = open_clip.CLIP(**to_openclip_config(ours.config)["model_cfg"])
    theirs.load_state_dict(ours.state_dict(), strict=False)
    assert dict(ours.named_parameters()).keys() == dict(theirs.named_parameters()).keys()
    return ours, theirs


def their_adamw(model: Any, config: Any) -> optim.Optimizer:
    """As open_clip_train.main 3.3.0 builds it, inside a function that cannot be called by itself."""

    def exclude(name: str, p: Any) -> bool:
        return p.ndim < 2 or "bn" in name or "ln" in name or "bias" in name or "logit_scale" in name

    parameters = list(model.named_parameters())
    return optim.AdamW(
        [
            {"params": [p for n, p in parameters if exclude(n, p)], "weight_decay": 0.0},
            {"params": [p for n, p in parameters if not exclude(n, p)], "weight_decay": config.wd},
        ],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
    )


def names(model: Any, optimizer: optim.Optimizer) -> list[tuple[float, set[str]]]:
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    return [(group["weight_decay"], {known[id(p)] for p in group["params"]}) for group in optimizer.param_groups]


@pytest.mark.parametrize("opt", ["adamw", "timm/lion", "timm/sgd", "timm/lamb", "timm/adamw"])
def test_groups_and_updates_are_those_of_open_clip(opt: str) -> None:
    ours, theirs = both()
    config = TrainConfig.of(model="tiny", train_data="a.tar", opt=opt, lr=1e-2, wd=0.3).optim
    mine = build_optimizer(ours, config)
    if opt == "adamw":
        peer = their_adamw(theirs, config)
    else:
        peer = create_optimizer_v2(theirs, opt.removeprefix("timm/"), lr=config.lr, weight_decay=config.wd)
    assert names(ours, mine) == names(theirs, peer)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        for name, one in ours.named_parameters():
            one.grad = torch.randn(one.shape, generator=generator)
            theirs.get_parameter(name).grad = one.grad.clone()
        take_step(mine, torch.tensor(True))
        peer.step()
    for name, one in ours.named_parameters():
        torch.testing.assert_close(one, theirs.get_parameter(name), rtol=1e-5, atol=1e-6, msg=name)
