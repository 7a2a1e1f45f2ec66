"""Real processes over gloo: the features and metrics of one, to the last bit, and errors that end all of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from clip_core.errors import ConfigError
from clip_eval.processes import Ranks, find_place
from clip_eval.spread import Part, cut, encode_spread, in_waves

forks = pytest.mark.skipif(sys.platform != "linux", reason="the processes are forked")


def found(worlds: Path, case: str, size: int, rank: int) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((worlds / f"{case}-{size}-{rank}.json").read_text())
    return result


@forks
@pytest.mark.parametrize(("case", "size"), [("same features", 2), ("same features", 3), ("fewer batches", 3)])
def test_several_processes_give_what_one_gives(worlds: Path, case: str, size: int) -> None:
    alone = found(worlds, case, 1, 0)
    assert len(alone["kept"]) == 20
    assert [entry["index"] for entry in alone["excluded"]] == [11, 12]
    for rank in range(size):
        assert found(worlds, case, size, rank) == alone


@forks
def test_the_store_of_the_first_process_serves_all(worlds: Path) -> None:
    alone = found(worlds, "one store", 1, 0)
    assert (alone["found"], alone["files"]) == (22, 7)
    for rank in range(3):
        files = 7 if rank == 0 else 0
        assert found(worlds, "one store", 3, rank) == {**alone, "files": files}
    names = [
        sorted(path.relative_to(worlds / f"store-{size}") for path in (worlds / f"store-{size}").rglob("*"))
        for size in (1, 3)
    ]
    assert names[0] == names[1]


@forks
@pytest.mark.parametrize(
    ("case", "size", "rank", "error", "message"),
    [
        ("data error", 3, 0, "DataError", "the disk is gone (In process 2 of 3.)"),
        ("data error", 3, 1, "DataError", "the disk is gone (In process 2 of 3.)"),
        ("data error", 3, 2, "DataError", "the disk is gone"),
        ("defect", 2, 0, "RuntimeError", "Process 1 of 2 failed with KeyError: Traceback"),
        ("defect", 2, 1, "KeyError", "'forgotten'"),
        ("killed", 2, 0, "LostProcess", "Process 0 of 2 waited for another one in vain"),
        ("silent", 2, 0, "LostProcess", "Timed out"),
        ("silent", 2, 1, "LostProcess", "Process 1 of 2 waited for another one in vain"),
        ("other data", 2, 0, "ConfigError", "disagree about the samples of data: 22, "),
        ("other data", 2, 1, "ConfigError", "disagree about the samples of data: 22, "),
        ("other weights", 2, 1, "ConfigError", "disagree about the weights"),
    ],
)
def test_an_error_of_one_ends_all(worlds: Path, case: str, size: int, rank: int, error: str, message: str) -> None:
    result = found(worlds, case, size, rank)
    assert result["error"] == error
    assert message in result["message"]


def test_alone_nothing_is_sent() -> None:
    with Ranks() as ranks:
        rows = torch.arange(6.0).view(3, 2)
        assert ranks.first
        assert ranks.gather(rows)[0] is rows
        assert ranks.from_first(rows) is rows
        assert ranks.gather_text("caf\u00e9 \udc80") == ["caf\u00e9 \udc80"]
        assert ranks.together(lambda: 3) == 3
        ranks.agree("anything", "a")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1, 0, "", 0)),
        (
            {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "7"},
            (5, 8, 1, "a", 7),
        ),
        # In a batch script that has not called srun, SLURM speaks of the job's tasks.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, (0, 1, 0, "", 0)),
        (
            {
                "SLURM_PROCID": "3",
                "SLURM_STEP_NUM_TASKS": "4",
                "SLURM_LOCALID": "1",
                "SLURM_STEP_NODELIST": "gpu[017-019,23],cpu1",
                "SLURM_JOB_ID": "10",
                "SLURM_STEP_ID": "2",
            },
            (3, 4, 1, "gpu017", 20_312),
        ),
    ],
)
def test_the_place_that_a_launcher_gives(environment: dict[str, str], expected: tuple[int, int, int, str, int]) -> None:
    place = find_place(environment)
    assert (place.rank, place.size, place.local_rank, place.address, place.port) == expected


@pytest.mark.parametrize(
    ("nodes", "first"), [("one", "one"), ("a-1,b", "a-1"), ("n[3,5-9]", "n3"), ("rack1n[08-11]-ib,x", "rack1n08-ib")]
)
def test_the_first_machine_of_slurms_list(nodes: str, first: str) -> None:
    said = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": nodes}
    assert find_place(said).address == first


def test_an_environment_that_contradicts_itself() -> None:
    with pytest.raises(ConfigError, match="process 2 of 2"):
        find_place({"RANK": "2", "WORLD_SIZE": "2"})
    with pytest.raises(ConfigError, match="WORLD_SIZE is 'two'"):
        find_place({"RANK": "0", "WORLD_SIZE": "two"})


def test_units_wait_for_each_other_only_where_they_are_too_small() -> None:
    assert in_waves([4, 1, 1, 5, 2], 1) == [range(1), range(1, 2), range(2, 3), range(3, 4), range(4, 5)]
    assert in_waves([4, 1, 1, 5, 2], 4) == [range(1), range(1, 4), range(4, 5)]
    assert in_waves([], 4) == []
    assert cut(range(3, 10), 3) == [range(3, 6), range(6, 9), range(9, 10)]


def test_one_unit_is_done_before_the_next_is_begun() -> None:
    asked = []

    def encode(batches):
        for batch in batches:
            asked.append(batch)
            yield Part(torch.ones(len(batch), 2), torch.tensor(batch))

    units = encode_spread([range(3), range(3, 5)], 2, 2, encode, Ranks())
    assert next(units).places.tolist() == [0, 1, 2]
    assert asked == [range(2), range(2, 3)]
    assert next(units).places.tolist() == [3, 4]
