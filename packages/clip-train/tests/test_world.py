from __future__ import annotations

import pytest

from clip_core.errors import ConfigError, DataError
from clip_train.world import PeerFailed, World, find_place

SRUN = {"SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_STEP_ID": "0", "SLURM_JOB_ID": "123"}


def test_a_process_of_its_own_is_alone() -> None:
    assert find_place({}).size == 1
    assert find_place({"WORLD_SIZE": "1", "RANK": "0"}).size == 1


def test_torchrun_says_where_a_process_is() -> None:
    place = find_place({"WORLD_SIZE": "8", "RANK": "5", "LOCAL_RANK": "1"})
    assert (place.rank, place.size, place.local_rank, place.launcher, place.meeting) == (5, 8, 1, "torchrun", None)


def test_srun_says_where_a_process_is_and_the_first_host_is_the_meeting() -> None:
    place = find_place({**SRUN, "SLURM_STEP_NODELIST": "gpu[007-009,12],other3"})
    assert (place.rank, place.size, place.local_rank, place.launcher) == (3, 4, 1, "srun")
    assert place.meeting == "tcp://gpu007:15123"
    assert find_place({**SRUN, "SLURM_STEP_NODELIST": "one,two"}).meeting == "tcp://one:15123"
    assert find_place({**SRUN, "MASTER_ADDR": "there"}).meeting is None


def test_a_shell_inside_of_an_allocation_is_alone() -> None:
    assert find_place({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}).size == 1


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"WORLD_SIZE": "4"}, "RANK is missing"),
        ({"WORLD_SIZE": "four"}, "'four'"),
        ({"WORLD_SIZE": "4", "RANK": "4"}, "rank 4 in a world of 4"),
    ],
)
def test_half_an_environment_is_refused(environment: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        find_place(environment)


def test_alone_everything_is_ones_own() -> None:
    world = World()
    assert world.gather(3) == [3]
    assert world.from_first("x") == world.first_does(lambda: "x") == "x"

    def fail() -> None:
        raise DataError("no data")

    with pytest.raises(DataError, match="no data"):
        world.together(fail)
    assert issubclass(PeerFailed, Exception)
