"""Faults put into real runs of several processes, and the same without the guard (clip_train.surviving).

tools/failure_table.py makes a table of them.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from clip_core.errors import ClipError, DataError
from clip_hub import retrying
from clip_train import TrainConfig, train, trainer
from clip_train import run as run_module
from clip_train import watchdog as watchdog_module
from clip_train.checkpoint import newest
from clip_train.checkpoint.saver import Saver
from clip_train.data import fetching
from clip_train.exit_codes import LOST_A_PROCESS, STOPPED
from clip_train.guard import Guard
from clip_train.plan import prepare
from clip_train.stopping import Stopping
from clip_train.watchdog import Watchdog

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked here")

Inject = Callable[[int], object]


class Processes:
    """The processes of one run, forked from this one, which has torch loaded; each leaves a code and its stderr."""

    def __init__(
        self, folder: Path, size: int, fields: dict[str, Any], inject: Inject, address: str = "127.0.0.1"
    ) -> None:
        self.address = address
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        self.folder, self.began = folder, time.monotonic()
        self.run = Path(fields["logs"]) / fields["name"]
        self.pids = [self._fork(rank, size, port, fields, inject) for rank in range(size)]
        self._codes: dict[int, int] = {}

    def _fork(self, rank: int, size: int, port: int, fields: dict[str, Any], inject: Inject) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            file = os.open(self.folder / f"{rank}.err", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(file, 1)
            os.dup2(file, 2)
            sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
            logging.getLogger().handlers = [logging.StreamHandler(sys.stderr)]
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR=self.address)
            inject(rank)
            train(TrainConfig.of(**fields))
            code = 0
        except ClipError as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            code = getattr(error, "exit_code", 2)
        except BaseException:
            traceback.print_exc(file=sys.stderr)
        finally:
            sys.stderr.flush()
            os._exit(code)

    def err(self, rank: int) -> str:
        path = self.folder / f"{rank}.err"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def poll(self, rank: int) -> int | None:
        if rank not in self._codes:
            pid, status = os.waitpid(self.pids[rank], os.WNOHANG)
            if pid:
                self._codes[rank] = os.waitstatus_to_exitcode(status)
        return self._codes.get(rank)

    def wait(self, *ranks: int, seconds: float = 150.0) -> list[int]:
        deadline = time.monotonic() + seconds
        while any(self.poll(rank) is None for rank in ranks):
            assert time.monotonic() < deadline, "\n".join(self.err(rank)[-3000:] for rank in ranks)
            time.sleep(0.02)
        return [self._codes[rank] for rank in ranks]

    def wait_for_step(self, step: int) -> None:
        deadline = time.monotonic() + 120
        while not any(record["step"] >= step for record in records(self.run)):
            assert time.monotonic() < deadline, self.err(0)[-3000:]
            assert self.poll(0) is None, self.err(0)[-3000:]
            time.sleep(0.01)

    def end(self) -> None:
        for rank, pid in enumerate(self.pids):
            if self.poll(rank) is None:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def records(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def losses(run: Path) -> list[tuple[int, float, str]]:
    return [(record["step"], record["loss"], record["samples"]) for record in records(run)]


def fields_of(shards: str, logs: Path, name: str) -> dict[str, Any]:
    return {
        "model": "tiny", "train_data": shards, "batch_size": 4, "epochs": 6, "lr": 1e-3, "warmup": 2, "workers": 0,
        "device": "cpu", "precision": "fp32", "logs": str(logs), "name": name, "save_frequency": 0,
    }  # fmt: skip


@pytest.fixture
def launch(shards: str, tmp_path: Path) -> Iterator[Callable[..., Processes]]:
    started: list[Processes] = []

    def start(
        inject: Inject = lambda rank: None,
        *,
        size: int = 2,
        name: str = "run",
        address: str = "127.0.0.1",
        **fields: Any,
    ) -> Processes:
        folder = tmp_path / f"{name}-{len(started)}"
        folder.mkdir()
        given = {**fields_of(shards, tmp_path / "logs", name), **fields}
        started.append(Processes(folder, size, given, inject, address))
        return started[-1]

    yield start
    for one in started:
        one.end()


@pytest.fixture(scope="module")
def whole(shards: str, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, float, str]]:
    """What two processes log that nothing happens to."""
    folder = tmp_path_factory.mktemp("whole")
    run = Processes(folder, 2, fields_of(shards, folder / "logs", "whole"), lambda rank: None)
    assert run.wait(0, 1) == [0, 0], run.err(0)
    return losses(run.run)


def slowly(seconds: float) -> None:
    """Every step takes `seconds` longer, so that something can happen meanwhile."""
    honest = trainer._step

    def step(*arguments: Any) -> Any:
        time.sleep(seconds)
        return honest(*arguments)

    trainer._step = step


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


@pytest.mark.failure("pipe exits 1", promise="In a run of two processes it is fetched again; the losses are the same.")
@pytest.mark.failure("pipe hangs", promise="In a run of two processes it is fetched again; the losses are the same.")
@pytest.mark.failure("stragglers", promise="In a run of two processes the slow one is named in the log.")
@pytest.mark.parametrize("guarded", [True, False])
def test_pipes_that_fail_and_hang_and_a_slow_process_cost_time_and_no_sample(
    launch: Callable[..., Processes], shards: str, tmp_path: Path, guarded: bool
) -> None:
    def piped(number: int, trouble: str) -> str:
        """The first time there is trouble in the middle of the shard."""
        calls, shard = tmp_path / f"calls-{number}", Path(shards).with_name(f"0000{number}.tar")
        return f"pipe:test -e {calls} || {{ touch {calls}; head -c 9000 {shard}; {trouble}; }}; cat {shard}"

    def inject(rank: int) -> None:
        retrying.sleep = lambda seconds: None
        if not guarded:
            fetching.retrying = lambda action, what: action()

    mark = f"98765{os.getpid()}"
    pattern = f"{piped(0, 'exit 1')}::{piped(1, f'sleep {mark} & sleep {mark}')}"
    fields = {
        "train_data": pattern,
        "dataset_type": "webdataset",
        "epochs": 2,
        "order_streams": 2,
        "stall_timeout": 1.0,
    }
    run = launch(inject, name="troubled", data_cache=str(tmp_path / "troubled"), **fields)
    codes = run.wait(0, 1)
    # Nothing of what hung is left.
    assert mark not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    if not guarded:
        assert codes == [2, 2]
        assert "trouble of the place that it comes from and not of the data" in run.err(0)
        return
    assert codes == [0, 0], run.err(0)
    said = run.err(0) + run.err(1)
    assert said.count("ended with exit code 1; trying again") == said.count(" has stalled: ") == 1
    # All trouble is over: the same run with another cache, and with one slow process.
    other = launch(lambda rank: slowly(0.2) if rank else None, name="well", data_cache=str(tmp_path / "well"), **fields)
    assert other.wait(0, 1) == [0, 0], other.err(0)
    assert losses(run.run) == losses(other.run)
    assert "process 1 on" in other.err(0)
    assert "is the slowest" in other.err(0)


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


LAUNCHED = """
import os, signal, sys, time
from clip_train import trainer
from clip_train.cli import main

attempt, rank = int(os.environ["TORCHELASTIC_RESTART_COUNT"]), int(os.environ["RANK"])
kills = [tuple(map(int, word.split(":"))) for word in sys.argv[1].split(",")]
honest = trainer._step

def step(running, number, *more):
    if attempt < len(kills) and kills[attempt] == (rank, number):
        os.kill(os.getpid(), signal.SIGKILL)
    return honest(running, number, *more)

trainer._step = step
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.failure("dead rank", promise="torchrun --max-restarts starts all again, and the run ends as if untouched.")
@pytest.mark.parametrize(
    ("kills", "guarded"),
    [
        ("1:7", True),
        pytest.param("0:5,1:10,0:21", True, marks=pytest.mark.slow),
        pytest.param("1:7", False, marks=pytest.mark.slow),
    ],
)
def test_torchrun_starts_killed_processes_again_and_the_run_is_the_same(
    whole: list[Any], shards: str, tmp_path: Path, kills: str, guarded: bool
) -> None:
    script = tmp_path / "launched.py"
    script.write_text(LAUNCHED, encoding="utf-8")
    fields = {**fields_of(shards, tmp_path / "logs", "run"), "save_every_n_steps": 4}
    words = [word for name, value in fields.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=3"]
    again = ["--resume", "latest"] if guarded else []
    done = subprocess.run(
        [*launcher, "--", str(script), kills, *words, *again],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if not guarded:
        assert done.returncode != 0
        assert "already holds a run" in done.stderr
        return
    assert done.returncode == 0, done.stderr[-6000:]
    assert losses(tmp_path / "logs" / "run") == whole
    log = (tmp_path / "logs" / "run" / "out.log").read_text(encoding="utf-8")
    assert log.count("going on after step") == len(kills.split(","))


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
