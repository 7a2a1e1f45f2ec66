"""Pipes that fail or hang, a slow process, and torchrun that starts all again, in real runs of two processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clip_hub import retrying
from clip_train.data import fetching
from forked_runs import Processes, fields_of, losses, slowly

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked here")


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
