"""What one process does with signals; that all stop together is in test_failures."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from clip_train.exit_codes import STOPPED
from clip_train.stopping import Stopping, how_to_go_on

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")

YES = torch.tensor(True)


def running(**more: Any) -> Any:
    fields: dict[str, Any] = {
        "votes": {"stop": False},
        "agreed": set(),
        "stop": False,
        "state": SimpleNamespace(steps=7),
    }
    return SimpleNamespace(**{**fields, **more})


def soon(found: Callable[[], object]) -> bool:
    deadline = time.monotonic() + 10
    while not found() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(found())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_the_first_signal_is_a_vote_and_the_vote_a_stop(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    ended: list[int] = []
    with Stopping(seconds=60, end=ended.append, environment={}) as stopping:
        one = running()
        stopping.after_step(one, YES)
        assert not one.votes["stop"]
        os.kill(os.getpid(), number)
        assert soon(lambda: stopping.at)
        stopping.after_step(one, YES)
        assert (one.votes["stop"], one.stop, stopping.by) == (True, False, None)
        one.agreed = {"stop"}
        stopping.after_step(one, YES)
        assert (one.stop, stopping.by) == (True, number.name)
    assert signal.getsignal(number) is before
    assert ended == []


def test_what_another_process_asked_for_is_done() -> None:
    with Stopping(seconds=60, environment={}) as stopping:
        one = running(agreed={"stop"})
        stopping.after_step(one, YES)
        assert (one.stop, stopping.by) == (True, "another process")


def test_a_second_signal_ends_at_once_and_the_echo_of_a_launcher_does_not() -> None:
    for environment, expected in (({}, [143]), ({"TORCHELASTIC_RUN_ID": "x"}, [])):
        ended: list[int] = []
        with Stopping(seconds=60, end=ended.append, environment=environment) as stopping:
            os.kill(os.getpid(), signal.SIGTERM)
            assert soon(lambda stopping=stopping: stopping.at)
            os.kill(os.getpid(), signal.SIGTERM)
            if expected:
                assert soon(lambda ended=ended: ended)
            else:
                time.sleep(0.1)
        assert ended == expected


def test_a_process_that_does_not_get_to_its_end_is_ended_by_force(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[int] = []
    with Stopping(seconds=0.05, end=ended.append, environment={}):
        os.kill(os.getpid(), signal.SIGTERM)
        # No handler of Python runs while a thread is waited for.
        assert soon(lambda: ended)
    assert ended == [STOPPED]
    assert "not stopped within 0.05 s of SIGTERM (--stop-seconds)" in caplog.text


def test_outside_of_the_main_thread_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    found: list[object] = []

    def work() -> None:
        with Stopping(seconds=60, environment={}):
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]


def test_a_job_of_slurm_is_told_how_it_goes_on() -> None:
    assert "scontrol requeue 12" in how_to_go_on({"SLURM_JOB_ID": "12"})
    assert "scontrol" not in how_to_go_on({})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_leaving_does_not_wait_for_processes_that_were_forked_meanwhile() -> None:
    """A data worker holds the descriptor that signals are read from, and lives longer than the loop."""
    with Stopping(seconds=60, environment={}):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
