from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import clip_core
from clip_train import TrainConfig
from clip_train.ema import WeightAverage
from clip_train.plan import prepare
from clip_train.trainer import Running, fit, start


class Watch:
    """Keeps the weights after each step, and refuses to let some updates happen."""

    votes: tuple[str, ...] = ()

    def __init__(self, name: str) -> None:
        self.name, self.seen = name, list[Tensor]()

    def after_step(self, running: Running, admitted: Tensor) -> None:
        self.seen.append(running.plan.bundle.model.get_parameter(self.name).detach().clone())


def trained(config: TrainConfig) -> tuple[Running, Watch, Tensor]:
    running = start(prepare(config))
    watch = Watch("visual.proj")
    before = running.plan.bundle.model.get_parameter("visual.proj").detach().clone()
    fit(running, [watch])
    return running, watch, before


@pytest.mark.parametrize("every", [1, 2])
def test_the_mean_is_that_of_the_formula(make_config: Callable[..., TrainConfig], every: int) -> None:
    running, watch, mean = trained(make_config(ema_decay=0.7, ema_every=every))
    mean = mean.double()
    for step, value in enumerate(watch.seen, start=1):
        if step % every == 0:
            mean = 0.7**every * mean + (1 - 0.7**every) * value.double()
    assert running.average is not None
    torch.testing.assert_close(running.average.state_dict()["visual.proj"].double(), mean, rtol=1e-5, atol=1e-7)


def test_a_refused_update_is_not_averaged(make_config: Callable[..., TrainConfig]) -> None:
    """With the weights away from their mean, a step that is refused must leave the mean where it is."""
    running = start(prepare(make_config(ema_decay=0.5)))
    average = running.average
    assert average is not None
    with torch.no_grad():
        for parameter in running.model.parameters():
            parameter.add_(1.0)
    before = {name: value.clone() for name, value in average.state_dict().items()}
    average.after_step(running, torch.tensor(False))
    assert all(torch.equal(value, before[name]) for name, value in average.state_dict().items())
    average.after_step(running, torch.tensor(True))
    for name, value in average.state_dict().items():
        torch.testing.assert_close(value, before[name] + 0.5)


def test_it_goes_on_from_its_state() -> None:
    model = clip_core.create_model("tiny")
    one, other = WeightAverage(model, 0.9), WeightAverage(clip_core.create_model("tiny"), 0.9)
    other.load_state_dict(one.state_dict())
    assert all(torch.equal(value, one.state_dict()[name]) for name, value in other.state_dict().items())


def test_what_is_locked_is_not_held_and_stays_in_the_model() -> None:
    model = clip_core.create_model("tiny")
    model.lock_image_tower()
    average = WeightAverage(model, 0.9)
    assert not [name for name in average.state_dict() if name.startswith("visual.")]
    assert "text_projection" in average.state_dict()


def test_the_model_has_the_mean_for_a_while_in_float32() -> None:
    model = clip_core.create_model("tiny", precision="bf16")
    average = WeightAverage(model, 0.9)
    held = model.get_parameter("visual.proj")
    value = held.detach().clone()
    held.grad = torch.ones_like(held)
    for mean in average.state_dict().values():
        mean.fill_(math.pi)
    with average.applied():
        assert held.dtype == torch.float32
        assert torch.all(held == torch.tensor(math.pi))
    assert held.dtype == torch.bfloat16
    assert torch.equal(held, value)


def test_a_run_leaves_both_bundles(make_config: Callable[..., TrainConfig]) -> None:
    from clip_train import train

    result: Any = train(make_config(ema_decay=0.5, precision="pure_bf16"))
    last, mean = clip_core.load(result.bundle).model, clip_core.load(result.folder / "bundle-ema").model
    assert {parameter.dtype for parameter in mean.parameters()} == {torch.float32}
    moved = [not torch.equal(one, other) for one, other in zip(last.parameters(), mean.parameters(), strict=True)]
    assert sum(moved) > len(moved) / 2
    config = TrainConfig.from_json(result.config.to_json())
    assert config.optim.ema_decay == 0.5
