"""Who is to blame; what happens then to real processes is in test_failures."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time

import pytest
import torch.distributed as dist

from clip_train import watchdog
from clip_train.exit_codes import LOST_A_PROCESS
from clip_train.watchdog import BETWEEN, LONG, PREPARING, Sighting, Watchdog, _born, _kill_if_here, _self, culprits
from clip_train.world import World

READING, COMPUTING = "reading data", "forward and backward"


def at(rank: int, step: int, phase: str, *, silent: float = 0.0, stuck: float = 0.0) -> Sighting:
    return Sighting(rank, "here", step, phase, silent, stuck)


def blamed(*sightings: Sighting, warm_after: int = 3) -> list[int]:
    return [one.rank for one in culprits(sightings, seconds=10.0, warm_after=warm_after)[1]]


def test_nobody_is_blamed_while_all_go_on() -> None:
    assert blamed(at(0, 9, COMPUTING, stuck=9), at(1, 9, READING, silent=9, stuck=9)) == []
    assert blamed() == []


def test_whoever_says_nothing_is_blamed() -> None:
    assert blamed(at(0, 9, COMPUTING, stuck=11), at(1, 9, COMPUTING, silent=11, stuck=11)) == [1]


def test_whoever_is_behind_is_blamed_and_not_those_that_wait() -> None:
    assert blamed(at(0, 9, COMPUTING, stuck=11), at(1, 9, READING, stuck=11), at(2, 8, BETWEEN, stuck=9)) == []
    assert blamed(at(0, 9, COMPUTING, stuck=11), at(1, 9, READING, stuck=11)) == [1]
    assert blamed(at(0, 9, COMPUTING, stuck=11), at(1, 9, COMPUTING, stuck=11)) == [0, 1]
    # One of those behind has just come there.
    assert blamed(at(0, 9, READING, stuck=1), at(1, 9, READING, stuck=11)) == []


@pytest.mark.parametrize(("step", "phase"), [(9, BETWEEN), (0, PREPARING), (2, COMPUTING)])
def test_what_takes_long_has_more_time(step: int, phase: str) -> None:
    waiting = at(0, 10, READING, stuck=99)
    assert blamed(waiting, at(1, step, phase, stuck=10 * LONG - 1)) == []
    assert blamed(waiting, at(1, step, phase, stuck=10 * LONG + 1)) == [1]


def test_of_those_that_prepare_the_one_that_has_done_least_is_blamed() -> None:
    done, working = (Sighting(rank, stuck=9999, done=40 - 10 * rank) for rank in range(2))
    assert blamed(done, working) == [1]
    assert "30 files indexed" in working.describe()
    assert blamed(done, dataclasses.replace(working, stuck=5)) == []


def test_indexing_may_take_as_long_as_it_likes_and_a_standstill_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_kill_if_here", lambda body: None)
    store, ended = dist.HashStore(), []
    with contextlib.ExitStack() as stack:
        dogs = []
        for rank in range(2):
            world = World(rank=rank, size=2, store=store)
            dogs.append(stack.enter_context(Watchdog(world, seconds=0.1, end=lambda code: ended.append(code))))
        # The first has indexed all and waits for the other, which takes three times what a standstill may.
        dogs[0].advance(1000)
        for done in range(60):
            dogs[1].advance(done)
            time.sleep(0.05)
        assert ended == []
        deadline = time.monotonic() + 20
        while len(ended) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert ended == [LOST_A_PROCESS] * 2


def test_whoever_loads_libraries_may_be_silent_for_a_while() -> None:
    assert blamed(at(0, 0, PREPARING), at(1, 0, PREPARING, silent=11)) == []
    assert blamed(at(0, 0, PREPARING), at(1, 0, PREPARING, silent=10 * LONG + 1)) == [1]


def test_alone_and_without_a_limit_nothing_is_watched() -> None:
    for world, seconds in ((World(), 5.0), (World(size=2), 0.0)):
        with Watchdog(world, seconds=seconds) as dog, dog.explaining():
            dog.at(1, READING)
        with pytest.raises(RuntimeError, match="gloo"), dog.explaining():
            raise RuntimeError("gloo says nothing")


def test_only_the_very_process_that_was_seen_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: ended.append(pid))
    own = {**_self(), "pid": os.getppid(), "born": _born(os.getppid())}
    for other in ({"born": "1"}, {"space": "another host"}, {"born": ""}):
        _kill_if_here({**own, **other})
    assert ended == []
    if own["space"]:
        _kill_if_here(own)
        assert ended == [os.getppid()]
