"""Faults put into real runs of several processes, and the same without the guard (clip_train.surviving).

tools/failure_table.py makes a table of them.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from clip_core.errors import DataError
from clip_train import TrainConfig, trainer
from clip_train import run as run_module
from clip_train import watchdog as watchdog_module
from clip_train.checkpoint import newest
from clip_train.checkpoint.saver import Saver
from clip_train.exit_codes import LOST_A_PROCESS, STOPPED
from clip_train.guard import Guard
from clip_train.plan import prepare
from clip_train.stopping import Stopping
from clip_train.watchdog import Watchdog
from forked_runs import Processes, fields_of, losses, records, slowly

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked here")


def spoil_loss(when: Callable[[int], bool], factor: float) -> None:
    """Multiply this process's loss, and so its gradient, by `factor` at the calls (from 1) that `when` names."""
    honest, calls = trainer.backward, iter(range(1, 10**6))

    def backward(model: Any, objective: Any, batches: Any, **more: Any) -> Any:
        if not when(next(calls)):
            return honest(model, objective, batches, **more)
        spoiled = copy.copy(objective)
        spoiled.joint = lambda *words: {name: loss * factor for name, loss in objective.joint(*words).items()}
        return honest(model, spoiled, batches, **more)

    trainer.backward = backward


@pytest.mark.failure(
    "one NaN loss", promise="Nobody updates, on any process, and everybody knows; the weights stay finite and equal."
)
@pytest.mark.parametrize("guarded", [True, False])
def test_one_loss_that_is_no_number_on_one_process_keeps_all_from_updating(
    launch: Callable[..., Processes], guarded: bool
) -> None:
    def inject(rank: int) -> None:
        if rank == 1:
            spoil_loss(lambda call: call == 3, float("nan"))
        if not guarded:
            Guard.admits = lambda self, loss, norm: torch.tensor(True)  # type: ignore[method-assign]

    run = launch(inject, epochs=2)
    codes = run.wait(0, 1)
    if not guarded:
        assert codes[1] == 2
        assert "not finite" in run.err(1)
        return
    assert codes == [0, 0], run.err(0)
    found = records(run.run)
    assert [record["step"] for record in found if not record["updated"]] == [3]
    assert [record["finite"] for record in found] == [True, True, False, True, True, True, True, True, True, True]
    assert "step 3: loss nan" in run.err(0)
    assert "step 3: loss nan" in run.err(1)


@pytest.mark.failure(
    "loss spike",
    promise="With --guard-spike the steps are skipped and counted; ten in a row take the run back to its last "
    "checkpoint, and past exactly that data; too many roll backs end it.",
)
@pytest.mark.parametrize("guarded", [True, False])
def test_a_run_of_spikes_takes_training_back_and_past_the_data(
    launch: Callable[..., Processes], shards: str, tmp_path: Path, guarded: bool
) -> None:
    def inject(rank: int) -> None:
        spoil_loss(lambda call: 27 <= call <= 36, 1e4)

    run = launch(
        inject, epochs=10, save_every_n_steps=5, guard_spike=6.0 if guarded else None, lr=1e-4, save_frequency=0
    )
    assert run.wait(0, 1) == [0, 0], run.err(0)
    found = records(run.run)
    assert [record["step"] for record in found] == list(range(1, 51))
    log = (run.run / "out.log").read_text(encoding="utf-8")
    if not guarded:
        assert max(record["grad_norm"] for record in found) > 100
        assert "back from step" not in log
        return
    # The last checkpoint was that of step 35; step 36 was the tenth.
    assert "back from step 36 to step 35" in log
    summary = json.loads((run.run / "summary.json").read_text(encoding="utf-8"))
    assert (summary["data_offset"], summary["skipped_steps"]) == (1, 10)
    # The order is a function: the data of step 36 is left out, and one step more is read behind the end.
    plan = prepare(TrainConfig.of(**{**fields_of(shards, tmp_path, "order"), "batch_size": 8}))
    digests = [
        f"{plan.decoder.batch([divmod(slot, 40) for slot in range(8 * n, 8 * n + 8)]).digest:016x}" for n in range(51)
    ]
    assert [record["samples"] for record in found] == digests[:35] + digests[36:]


@pytest.mark.failure(
    "SIGTERM / SLURM",
    promise="All processes stop after the same step, save, and leave exit code 75; going on gives the same losses to "
    "the bit.",
)
@pytest.mark.parametrize("guarded", [True, False])
def test_a_signal_to_one_process_stops_all_after_one_step_and_nothing_is_lost(
    launch: Callable[..., Processes], whole: list[Any], guarded: bool
) -> None:
    def inject(rank: int) -> None:
        os.environ["SLURM_JOB_ID"] = "4711"
        slowly(0.02)
        if not guarded:
            Stopping.__enter__ = lambda self: self  # type: ignore[method-assign]

    stopped = launch(inject, name="stopped")
    stopped.wait_for_step(3)
    os.kill(stopped.pids[1], signal.SIGUSR1)
    if not guarded:
        assert stopped.wait(1) == [-signal.SIGUSR1]
        return
    assert stopped.wait(0, 1) == [STOPPED, STOPPED], stopped.err(0)
    steps = len(records(stopped.run))
    assert 3 <= steps < 30
    for rank in (0, 1):
        assert f"stopping after step {steps}" in stopped.err(rank)
        assert "scontrol requeue 4711" in stopped.err(rank)
    assert "SIGUSR1" in stopped.err(1)
    assert not (stopped.run / "bundle").exists()
    again = launch(name="stopped", resume="latest")
    assert again.wait(0, 1) == [0, 0], again.err(0)
    assert losses(again.run) == whole


@pytest.mark.failure(
    "hung rank", promise="Within --timeout-seconds all processes end with exit code 76, naming rank, step and phase."
)
@pytest.mark.parametrize("guarded", [True, False])
def test_a_frozen_process_is_named_and_ends_all(launch: Callable[..., Processes], guarded: bool) -> None:
    run = launch(lambda rank: slowly(0.02), epochs=100, timeout_seconds=4.0 if guarded else 0.0)
    run.wait_for_step(6)
    os.kill(run.pids[1], signal.SIGSTOP)
    frozen = time.monotonic()
    if not guarded:
        time.sleep(6)
        assert run.poll(0) is None
        return
    assert run.wait(0) == [LOST_A_PROCESS], run.err(0)
    assert time.monotonic() - frozen < 30
    assert f"process 1 ({socket.gethostname()}, pid {run.pids[1]}), last seen at step" in run.err(0)
    assert ", silent for " in run.err(0)
    # The launcher need not wait for it.
    assert run.wait(1) == [-signal.SIGKILL]


@pytest.mark.failure("hung rank", promise="One that hangs in reading or computing is told from those that wait for it.")
def test_a_process_that_gets_no_further_is_told_from_those_that_wait(launch: Callable[..., Processes]) -> None:
    def inject(rank: int) -> None:
        slowly(0.02)
        if rank == 2:
            honest = trainer.iterate_batches

            def hanging(*arguments: Any, **more: Any) -> Any:
                for number, batch in enumerate(honest(*arguments, **more)):
                    if number == 6:
                        time.sleep(1000)
                    yield batch

            trainer.iterate_batches = hanging

    run = launch(inject, size=3, batch_size=2, epochs=100, timeout_seconds=4.0)
    assert run.wait(0, 1, 2) == [LOST_A_PROCESS] * 3, run.err(0)
    for rank in range(3):
        assert f"pid {run.pids[2]}), last seen at step 7, reading data" in run.err(rank)
        assert f"pid {run.pids[1 - rank % 2]}), last seen" not in run.err(rank)


@pytest.mark.failure(
    "dead rank", promise="The others end at once with exit code 76 and name it; going on from the checkpoint is exact."
)
@pytest.mark.parametrize("guarded", [True, False])
def test_a_killed_process_is_named_and_ends_the_others(
    launch: Callable[..., Processes], whole: list[Any], guarded: bool
) -> None:
    def inject(rank: int) -> None:
        slowly(0.02)
        if not guarded:
            Watchdog.explaining = lambda self: contextlib.nullcontext()  # type: ignore[method-assign, assignment, return-value]

    run = launch(inject, save_every_n_steps=4, timeout_seconds=10.0)
    run.wait_for_step(6)
    os.kill(run.pids[1], signal.SIGKILL)
    if not guarded:
        assert run.wait(0) == [1]
        return
    assert run.wait(0, seconds=60) == [LOST_A_PROCESS], run.err(0)
    assert f"pid {run.pids[1]}), last seen at step" in run.err(0)
    again = launch(save_every_n_steps=4, resume="latest")
    assert again.wait(0, 1) == [0, 0], again.err(0)
    assert losses(again.run) == whole


def test_an_error_of_one_process_is_quoted_by_the_others(launch: Callable[..., Processes]) -> None:
    def inject(rank: int) -> None:
        if rank == 1:

            def failing(*arguments: Any, **more: Any) -> Any:
                raise DataError("the disk of this host is gone")

            trainer.iterate_batches = failing

    run = launch(inject, timeout_seconds=20.0)
    assert run.wait(0, 1) == [2, 2], run.err(0)
    assert "PeerFailed: Process 1 of 2 cannot go on: the disk of this host is gone" in run.err(0)


def command(*words: str) -> bool:
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a cable between them: 10.213.7.1 and 10.213.7.2, on "cable" in each."""
    names = (f"clip{os.getpid()}a", f"clip{os.getpid()}b")
    can = shutil.which("ip") is not None and all(command("ip", "netns", "add", name) for name in names)
    try:
        if not can:
            pytest.skip("network namespaces need root and the program ip")
        steps = [
            f"ip -n {names[0]} link add cable type veth peer name cable netns {names[1]}",
            *(f"ip -n {name} addr add 10.213.7.{n}/24 dev cable" for n, name in enumerate(names, 1)),
            *(f"ip -n {name} link set {link} up" for name in names for link in ("lo", "cable")),
        ]
        if not all(command(*step.split()) for step in steps):
            pytest.skip("no virtual cable can be laid between network namespaces here")
        yield names
    finally:
        for name in names:
            command("ip", "netns", "del", name)


@pytest.mark.failure("network cut", promise="The processes on both sides end within the limit with exit code 76.")
@pytest.mark.parametrize("guarded", [True, False])
def test_processes_on_both_sides_of_a_cut_end(
    launch: Callable[..., Processes], hosts: tuple[str, str], guarded: bool
) -> None:
    def inject(rank: int) -> None:
        with open(f"/run/netns/{hosts[rank]}", "rb") as place:
            assert ctypes.CDLL(None, use_errno=True).setns(place.fileno(), 0x40000000) == 0
        os.environ["GLOO_SOCKET_IFNAME"] = "cable"
        # Two hosts would have two sets of processes.
        watchdog_module._kill_if_here = lambda body: None
        slowly(0.02)

    run = launch(inject, address="10.213.7.1", epochs=200, timeout_seconds=3.0 if guarded else 0.0)
    run.wait_for_step(6)
    assert command("ip", "-n", hosts[0], "link", "set", "cable", "down")
    if not guarded:
        time.sleep(6)
        assert (run.poll(0), run.poll(1)) == (None, None)
        return
    cut = time.monotonic()
    assert run.wait(0, 1, seconds=60) == [LOST_A_PROCESS] * 2, run.err(0) + run.err(1)
    assert time.monotonic() - cut < 30
    assert f"pid {run.pids[1]}), last seen at step" in run.err(0)
    assert f"pid {run.pids[0]}), last seen at step" in run.err(1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for one checkpoint of `tiny`, and a bundle."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if not command("mount", "-t", "tmpfs", "-o", "size=110m", "tmpfs", str(disk)):
        pytest.skip("mounting a small disk needs root")
    yield disk
    command("umount", "-l", str(disk))


@pytest.mark.failure(
    "disk full",
    promise="Preflight finds it before the first step. Later a failed save is tried again and given up, aloud; older "
    "checkpoints stay good and training goes on, up to three failures in a row.",
)
@pytest.mark.parametrize("guarded", [True, False])
def test_a_disk_that_fills_up_costs_a_checkpoint_and_not_the_run(
    launch: Callable[..., Processes], small_disk: Path, guarded: bool
) -> None:
    found = launch(logs=str(small_disk / "logs"))
    assert found.wait(0, 1) == [2, 2]
    assert "has room for" in found.err(0)
    assert not (small_disk / "logs").exists()

    def inject(rank: int) -> None:
        run_module.preflight = lambda plan: []
        if not guarded:

            def fail(self: Saver, snapshot: Any, *arguments: Any) -> str | None:
                raise OSError(28, "No space left on device")

            Saver._try = fail  # type: ignore[method-assign, assignment]

    run = launch(inject, logs=str(small_disk / "logs"), save_every_n_steps=12)
    codes = run.wait(0, 1)
    if not guarded:
        assert codes[0] == 1
        return
    assert codes == [0, 0], run.err(0)
    assert "step 24 could not be saved" in run.err(0)
    held = newest(run.run / "checkpoints")
    assert held is not None
    assert held.name == "step-00000012"
    assert len(records(run.run)) == 30
