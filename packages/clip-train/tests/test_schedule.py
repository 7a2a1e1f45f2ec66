from __future__ import annotations

import pytest
from open_clip_train.scheduler import const_lr, const_lr_cooldown, cosine_lr

from clip_train import OptimConfig
from clip_train.schedule import cooldown_steps, learning_rate

pytestmark = pytest.mark.parity


class Recorder:
    def __init__(self) -> None:
        self.param_groups = [{"lr": 0.0}]


@pytest.mark.parametrize(("name", "peer"), [("cosine", cosine_lr), ("const", const_lr)])
@pytest.mark.parametrize(("warmup", "total"), [(0, 7), (1, 7), (10, 100), (200, 100)])
def test_the_numbers_are_those_of_open_clip(name: str, peer: object, warmup: int, total: int) -> None:
    config = OptimConfig(lr=3e-4, warmup=warmup, lr_scheduler=name)  # type: ignore[arg-type]
    theirs = peer(Recorder(), config.lr, warmup, total)  # type: ignore[operator]
    assert [learning_rate(config, step, total) for step in range(total)] == [theirs(step) for step in range(total)]


@pytest.mark.parametrize(("end", "power"), [(0.0, 1.0), (1e-5, 1.0), (0.0, 2.0), (3e-5, 0.5)])
@pytest.mark.parametrize(("warmup", "epochs", "cooldown", "per_epoch"), [(3, 5, 2, 10), (0, 4, 4, 3), (30, 3, 1, 12)])
def test_the_cooldown_is_open_clips(
    end: float, power: float, warmup: int, epochs: int, cooldown: int, per_epoch: int
) -> None:
    config = OptimConfig(
        lr=3e-4,
        warmup=warmup,
        epochs=epochs,
        lr_scheduler="const-cooldown",
        epochs_cooldown=cooldown,
        lr_cooldown_end=end,
        lr_cooldown_power=power,
    )
    total = epochs * per_epoch
    theirs = const_lr_cooldown(Recorder(), config.lr, warmup, total, cooldown * per_epoch, power, end)
    assert [learning_rate(config, step, total) for step in range(total)] == [theirs(step) for step in range(total)]


def test_without_a_schedule_every_step_has_the_same_rate() -> None:
    config = OptimConfig(lr=3e-4, warmup=5, skip_scheduler=True)
    assert {learning_rate(config, step, 20) for step in range(20)} == {3e-4}


def test_a_cooldown_is_a_share_of_the_run_to_the_next_whole_step() -> None:
    config = OptimConfig(epochs=3, epochs_cooldown=1, lr_scheduler="const-cooldown")
    assert [cooldown_steps(config, total) for total in (30, 31, 32)] == [10, 11, 11]
    assert cooldown_steps(OptimConfig(epochs=3, epochs_cooldown=1), 30) == 0
