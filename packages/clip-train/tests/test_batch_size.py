"""`--batch-size auto` finds what fits, says it, and leaves nothing else behind."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import pytest
import torch

from clip_core.errors import ConfigError
from clip_train import TrainConfig, train
from clip_train.flags import parse
from clip_train.parallel import batch_size
from clip_train.parallel.batch_size import available_memory, find_batch_size, largest_that_fits
from clip_train.plan import prepare
from clip_train.world import World

Make = Callable[..., TrainConfig]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 100, 1000, 1023])
def test_the_search_comes_near_to_what_fits_and_never_above(limit: int) -> None:
    found = largest_that_fits(lambda size: size <= limit, 10_000)
    assert found <= limit
    assert found == 0 if limit < 2 else found > 0.85 * limit - 1
    assert largest_that_fits(lambda size: True, limit) <= max(2, limit)


def test_a_batch_that_does_not_fit_ends_the_search() -> None:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size < 50

    assert largest_that_fits(fits, 10**9) in range(40, 50)
    assert max(tried) == 64


def test_memory_of_this_host_is_a_number_of_bytes() -> None:
    assert 2**26 < available_memory() < 2**50


def test_more_memory_takes_more_samples_and_no_weight_moves(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config()
    plan = prepare(config)
    before = {name: value.clone() for name, value in plan.bundle.model.state_dict().items()}
    state, found = torch.get_rng_state(), []
    for memory in (2**28, 2**29, 2**30):
        monkeypatch.setattr(batch_size, "available_memory", lambda memory=memory: memory)
        found.append(find_batch_size(config, plan.bundle, None, World(), most=10**9))
    assert found[0] < found[1] < found[2]
    assert found[2] - found[1] == pytest.approx(2 * (found[1] - found[0]), abs=16)
    assert all(number % 8 == 0 for number in found)
    assert find_batch_size(config, plan.bundle, None, World(), most=20) == 16
    monkeypatch.setattr(batch_size, "available_memory", lambda: 2**20)
    with pytest.raises(ConfigError, match="not even 2"):
        find_batch_size(config, plan.bundle, None, World(), most=20)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in plan.bundle.model.parameters())
    for name, value in plan.bundle.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_mean_of_the_weights_lies_aside(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = prepare(make_config())
    weights = 4 * sum(parameter.numel() for parameter in plan.bundle.model.parameters())
    monkeypatch.setattr(batch_size, "_kept_bytes", lambda attempt: 1.0)
    found = []
    for more in ({}, {"ema_decay": 0.9}):
        monkeypatch.setattr(batch_size, "available_memory", lambda: 2**30)
        found.append(find_batch_size(make_config(**more), plan.bundle, None, World(), most=10**12))
    assert found[0] - found[1] == pytest.approx(weights / 2, abs=8)


def test_all_processes_take_what_fits_the_smallest(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = prepare(make_config())
    other = dataclasses.replace(World(), size=2)
    monkeypatch.setattr(World, "together", lambda self, work: work())
    monkeypatch.setattr(World, "gather", lambda self, value: [value, 12])
    assert find_batch_size(plan.config, plan.bundle, None, other, most=40) == 8


def test_the_number_is_in_the_runs_configuration(make_config: Make, shards: str) -> None:
    config, _ = parse(["--train-data", shards, "--model", "tiny", "--batch-size", "auto"])
    assert config.optim.batch_size == 0
    result = train(make_config(batch_size=0, accum_freq=2, name="auto"))
    assert result.config.optim.batch_size == 16  # 40 samples for two micro-batches
    held = json.loads((result.folder / "config.json").read_text(encoding="utf-8"))
    assert held["optim"]["batch_size"] == 16
    assert result.samples_seen == result.steps * 32
    with pytest.raises(ConfigError, match="batch-size"):
        parse(["--train-data", shards, "--model", "tiny", "--batch-size", "many"])
