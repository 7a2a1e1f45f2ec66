from __future__ import annotations

import pytest
from open_clip_train.scheduler import const_lr, cosine_lr

from clip_train import OptimConfig
from clip_train.schedule import learning_rate

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
