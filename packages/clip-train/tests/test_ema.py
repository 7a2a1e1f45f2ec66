from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
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


def test_a_slow_mean_of_weights_in_few_bits_moves() -> None:
    """In bfloat16 a step of 1e-4 of the way is less than the last bit, and the mean would stay where it began."""
    model = clip_core.create_model("tiny", precision="bf16")
    average = WeightAverage(model, 0.9999)
    weight = model.get_parameter("visual.proj")
    before = average.state_dict()["visual.proj"].clone()
    assert before.dtype == torch.float32
    with torch.no_grad():
        weight.add_(1.0)
    running: Any = SimpleNamespace(state=SimpleNamespace(steps=1))
    for _ in range(50):
        average.after_step(running, torch.tensor(True))
    moved = average.state_dict()["visual.proj"] - before
    expected = (1 - 0.9999**50) * (weight.detach().float() - before)
    torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("precision", ["pure_bf16", "bf16"])
def test_a_run_leaves_both_bundles(make_config: Callable[..., TrainConfig], precision: str) -> None:
    from clip_train import train

    # A locked tower is in the mean's bundle as it is, in the same dtype as the rest.
    result: Any = train(make_config(ema_decay=0.5, precision=precision, lock_image=True, lock_image_unlocked_groups=1))
    last, mean = clip_core.load(result.bundle).model, clip_core.load(result.folder / "bundle-ema").model
    held = load_file(result.folder / "bundle-ema" / "model.safetensors")
    assert {value.dtype for value in held.values()} == {torch.float32}
    assert load_file(result.bundle / "model.safetensors")["visual.proj"].dtype == torch.bfloat16
    moved = {n: not torch.equal(p, mean.get_parameter(n)) for n, p in last.named_parameters()}
    assert moved["visual.proj"]
    assert moved["transformer.resblocks.0.mlp.c_fc.weight"]
    assert not moved["visual.conv1.weight"]
    rounded = held["visual.proj"].bfloat16().float()
    assert not torch.equal(held["visual.proj"], rounded), "the mean has more bits than the weights"
    config = TrainConfig.from_json(result.config.to_json())
    assert config.optim.ema_decay == 0.5
