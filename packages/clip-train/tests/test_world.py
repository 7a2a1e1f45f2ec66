from __future__ import annotations

import dataclasses
import functools
import multiprocessing
import os
import sys
import time
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist

from clip_core.errors import ConfigError, DataError
from clip_train import TrainConfig, world
from clip_train.world import PeerFailed, World, join


def test_alone_everything_is_ones_own() -> None:
    alone = World()
    assert alone.gather(3) == [3]
    assert alone.from_first("x") == alone.first_does(lambda: "x") == "x"

    def fail() -> None:
        raise DataError("no data")

    with pytest.raises(DataError, match="no data"):
        alone.together(fail)


def test_without_a_launcher_there_is_one_process() -> None:
    with join(TrainConfig.of(model="tiny", train_data="a.tar", device="cpu")) as alone:
        assert (alone.rank, alone.size, alone.is_first, alone.device.type) == (0, 1, True, "cpu")


def test_half_an_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with (
        pytest.raises(ConfigError, match="WORLD_SIZE=4 and no RANK"),
        join(TrainConfig.of(model="tiny", train_data="a.tar")),
    ):
        pass


@pytest.mark.parametrize("error", [DataError("no data"), OSError(28, "No space left"), RuntimeError("out of memory")])
def test_any_error_of_one_process_is_everybodys(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    told: list[str | None] = []

    def gather(self: World, value: str | None) -> list[str | None]:
        told.append(value)
        return [told[0], value]

    def fail() -> None:
        raise error

    monkeypatch.setattr(World, "gather", gather)
    with pytest.raises(type(error)) as raised:
        World(rank=0, size=2).together(fail)
    assert raised.value is error
    with pytest.raises(PeerFailed, match="Process 0 of 2 cannot go on: ") as quoted:
        World(rank=1, size=2).together(lambda: None)
    assert str(error) in str(quoted.value)


def test_a_device_without_a_number_is_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's set_device refuses a device without an index; nothing here needs a GPU."""

    class Met(Exception):
        pass

    def meet(*arguments: object, **more: object) -> None:
        raise Met

    chosen: list[torch.device] = []
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(world, "resolve_device", torch.device)
    monkeypatch.setattr(world, "rendezvous", meet)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for named in ({"device": "cuda", "no_set_device_rank": True}, {"device": "cuda"}, {"device": "cuda:1"}):
        with pytest.raises(Met), join(TrainConfig.of(model="tiny", train_data="a.tar", **named)):
            pass
    assert chosen == [torch.device("cuda", index) for index in (0, 1, 1)]


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, (600, 1800)), (5.0, (650, 1800)), (900.0, (9600, 9600))])
def test_messages_wait_for_as_long_as_the_watchdog_does(
    monkeypatch: pytest.MonkeyPatch, seconds: float, expected: tuple[float, float]
) -> None:
    given: list[float] = []
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(world, "rendezvous", lambda *arguments, **more: iter([(dist.HashStore(), 1, 2)]))
    monkeypatch.setattr(dist, "init_process_group", lambda *arguments, **more: given.append(more["timeout"].seconds))
    monkeypatch.setattr(dist, "new_group", lambda *arguments, **more: given.append(more["timeout"].seconds))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    config = TrainConfig.of(model="tiny", train_data="a.tar", device="cpu", timeout_seconds=seconds)
    with join(config):
        assert tuple(given) == expected


def joins_twice(rank: int, port: int, answers: Any) -> None:
    launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in launched.items()})
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    config = TrainConfig.of(model="tiny", train_data="a.tar", device="cpu")
    for number in range(2):
        if rank == 1 and number == 1:
            time.sleep(1.5)
        with join(config) as joined:
            assert joined.store is not None
            seen = joined.store.check(["left"])
            found = joined.gather((rank, number))
            if number == 0:
                # The messages of this one run out of time while the other works, and it waits all the same.
                hasty = dist.new_group(backend="gloo", timeout=timedelta(seconds=1))
                work = functools.partial(time.sleep, 2.0 * rank)
                dataclasses.replace(joined, control=hasty).together(work, patiently=True)
            joined.store.set("left", "here")
            total = joined.sum(torch.tensor(rank + 1.0)).item()
            joined.barrier()
        answers.put((rank, number, seen, found, total))


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_second_world_beside_the_same_store_knows_nothing_of_the_first() -> None:
    agent = dist.TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    processes = [context.Process(target=joins_twice, args=(rank, agent.port, answers)) for rank in range(2)]
    try:
        for process in processes:
            process.start()
        found = sorted(answers.get(timeout=60) for _ in range(4))
    finally:
        for process in processes:
            process.kill()
            process.join()
    assert found == [(rank, number, False, [(0, number), (1, number)], 3.0) for rank in range(2) for number in range(2)]
