from __future__ import annotations

import pytest

from clip_core.errors import ConfigError, DataError
from clip_train import TrainConfig
from clip_train.world import World, join


def test_alone_everything_is_ones_own() -> None:
    world = World()
    assert world.gather(3) == [3]
    assert world.from_first("x") == world.first_does(lambda: "x") == "x"

    def fail() -> None:
        raise DataError("no data")

    with pytest.raises(DataError, match="no data"):
        world.together(fail)


def test_without_a_launcher_there_is_one_process() -> None:
    with join(TrainConfig.of(model="tiny", train_data="a.tar", device="cpu")) as world:
        assert (world.rank, world.size, world.is_first, world.device.type) == (0, 1, True, "cpu")


def test_half_an_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with (
        pytest.raises(ConfigError, match="WORLD_SIZE=4 and no RANK"),
        join(TrainConfig.of(model="tiny", train_data="a.tar")),
    ):
        pass
