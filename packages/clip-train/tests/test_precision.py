from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import clip_core
from clip_core.errors import ConfigError
from clip_train import TrainConfig, precision
from clip_train.plan import prepare
from clip_train.precision import LossScaler, autocast, lower_weights, multiply, require_possible
from clip_train.trainer import fit, start

CPU = torch.device("cpu")


def test_autocast_is_what_it_is_called() -> None:
    a = torch.ones(2, 2)
    for name, dtype in (("amp", torch.float16), ("amp_bf16", torch.bfloat16)):
        with autocast(name, CPU):
            assert (a @ a).dtype == dtype
    for name in ("fp32", "bf16", "fp16", "pure_bf16", "pure_fp16"):
        with autocast(name, CPU):
            assert (a @ a).dtype == torch.float32


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
@pytest.mark.parametrize("architecture", ["tiny", "RN50"])
def test_weights_are_low_but_for_norms_and_the_scale(name: str, dtype: torch.dtype, architecture: str) -> None:
    model = clip_core.create_model(architecture, device="meta")
    mixed, pure = copy.deepcopy(model), copy.deepcopy(model)
    lower_weights(mixed, name)
    lower_weights(pure, f"pure_{name}")
    norms = {
        f"{path}.{leaf}"
        for path, module in model.named_modules()
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d)
        for leaf, _ in module.named_parameters(recurse=False)
    }
    assert norms
    for key, parameter in mixed.named_parameters():
        assert parameter.dtype == (torch.float32 if key in norms | {"logit_scale"} else dtype), key
    for key, parameter in pure.named_parameters():
        assert parameter.dtype == (torch.float32 if key == "logit_scale" else dtype), key


def test_norms_kept_in_float32_compute_in_it() -> None:
    torch.manual_seed(0)
    norm = nn.Sequential(nn.LayerNorm(64))
    nn.init.normal_(norm[0].weight)  # type: ignore[arg-type]
    x = torch.randn(8, 64).bfloat16()
    exact = norm(x.float())
    lower_weights(norm, "bf16")
    found = norm(x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, exact.bfloat16())


def test_the_factor_is_torchs() -> None:
    ours, theirs = LossScaler(CPU, interval=3), torch.amp.GradScaler("cpu", growth_interval=3)
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    for overflowed in (False, False, False, True, False, True, True, False, False, False, False, False, False):
        loss = theirs.scale(weight.sum())
        assert ours.scale(torch.tensor(1.0)) == theirs.get_scale()
        weight.grad = torch.full((2,), float("inf")) if overflowed else torch.ones(2) * loss.detach() / loss.detach()
        theirs.step(optimizer)
        theirs.update()
        ours.update(torch.tensor(overflowed))
        assert ours.state_dict() == theirs.state_dict()
    again = LossScaler(CPU)
    again.load_state_dict(theirs.state_dict())
    assert again.state_dict() == ours.state_dict()


def test_tensors_of_several_devices_are_multiplied_on_their_own() -> None:
    """A device without numbers stands for the second one: the factor has to get there, and no other may be asked."""
    here, there = [torch.full((2,), 3.0), torch.tensor(5.0)], torch.empty(4, device="meta")
    multiply([here[0], there, here[1]], torch.tensor(2.0))
    assert here[0].tolist() == [6.0, 6.0]
    assert here[1].item() == 10.0
    multiply([], torch.tensor(2.0))


def test_an_overflow_is_told_from_divergence() -> None:
    scaler, infinite, nan = LossScaler(CPU), float("inf"), float("nan")
    assert scaler.is_overflow(2.0, infinite, 65536)
    assert scaler.is_overflow(2.0, nan, 65536)
    assert not scaler.is_overflow(nan, nan, 65536), "the loss itself is no number"
    assert not scaler.is_overflow(2.0, infinite, 1.0), "there is nothing left to take back"
    assert not scaler.is_overflow(2.0, 3.0, 65536)


def run(config: TrainConfig, **changes: Any) -> tuple[Any, list[dict[str, Any]]]:
    records: list[dict[str, Any]] = []
    running = start(prepare(config), record=records.append)
    for name, value in changes.items():
        setattr(running, name, value)
    fit(running)
    return running, records


def test_a_scaled_loss_gives_the_unscaled_gradient(make_config: Callable[..., TrainConfig]) -> None:
    """The factor is a power of two, so in float32 arithmetic nothing changes at all."""
    plain, expected = run(make_config(grad_clip_norm=0.5))
    scaled, found = run(make_config(grad_clip_norm=0.5), scaler=LossScaler(CPU, initial=2.0**10))
    assert [record["loss"] for record in found] == [record["loss"] for record in expected]
    assert [record["grad_norm"] for record in found] == [record["grad_norm"] for record in expected]
    assert {record["loss_scale"] for record in found} == {1024.0}
    for one, other in zip(plain.model.parameters(), scaled.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_too_large_a_factor_skips_steps_and_is_no_divergence(make_config: Callable[..., TrainConfig]) -> None:
    running, records = run(make_config(accum_freq=2), scaler=LossScaler(CPU, initial=2.0**127))
    updated = [record["updated"] for record in records]
    assert not updated[0]
    assert running.state.overflowed_steps == updated.count(False)
    assert (running.guard.skipped, running.guard.in_a_row, running.state.skipped_steps) == (0, 0, 0)
    factors = [record["loss_scale"] for record in records]
    for before, after, applied in zip(factors, factors[1:], updated, strict=False):
        assert after == (before if applied else before / 2)


@pytest.mark.parametrize("name", ["amp", "amp_bf16", "bf16", "fp16", "pure_bf16", "pure_fp16"])
def test_every_precision_trains(make_config: Callable[..., TrainConfig], name: str) -> None:
    try:
        require_possible(name, CPU)
    except ConfigError:
        pytest.skip(f"this processor has no {name}")
    # Adam's epsilon is nothing in float16.
    fields = {"eps": 1e-4} if "fp16" in name else {}
    running, records = run(make_config(precision=name, epochs=2, batch_size=10, grad_clip_norm=1.0, **fields))
    applied = [record for record in records if record["updated"]]
    assert len(applied) >= len(records) - 3
    assert applied[-1]["loss"] < applied[0]["loss"] + 0.5
    assert ("scaler" in running.parts) == (name == "amp")


def test_what_a_device_cannot_do_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise RuntimeError("\"slow_conv2d_cpu\" not implemented for 'Half'\nmore")

    monkeypatch.setattr(precision.nn.functional, "conv2d", refuse)
    with pytest.raises(ConfigError, match=r"--precision amp computes in torch.float16, which cpu cannot.*amp_bf16"):
        require_possible("amp", CPU)
    require_possible("fp32", CPU)
