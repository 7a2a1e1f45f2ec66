"""Real processes, started by torchrun, train as one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import clip_core
from clip_train import TrainConfig, train

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="torch for Windows has no libuv")


def torchrun(processes: int, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run(
        # Without the two dashes torchrun takes --logs for a beginning of its own --logs-specs.
        [*command, "-m", "--", "clip_train", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def read(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def words_of(shards: str, logs: Path, *more: str) -> list[str]:
    fixed = "--model tiny --epochs 2 --lr 1e-3 --warmup 2 --workers 0 --device cpu --precision fp32 --name run"
    return ["--train-data", shards, "--logs", str(logs), *fixed.split(), *more]


def test_two_processes_train_as_one_with_the_whole_batch(shards: str, tmp_path: Path) -> None:
    done = torchrun(2, words_of(shards, tmp_path / "two", "--batch-size", "4", "--accum-freq", "2"))
    assert done.returncode == 0, done.stderr[-4000:]
    fields = {"epochs": 2, "lr": 1e-3, "warmup": 2, "workers": 0, "device": "cpu", "precision": "fp32"}
    alone = train(
        TrainConfig.of(model="tiny", train_data=shards, batch_size=16, logs=str(tmp_path / "one"), name="run", **fields)
    )
    found, expected = read(tmp_path / "two" / "run"), read(alone.folder)
    assert len(found) == len(expected) == 5
    for ours, theirs in zip(found, expected, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["samples_seen"] == theirs["samples_seen"]
    weights = clip_core.load(tmp_path / "two" / "run" / "bundle").model.state_dict()
    for name, value in clip_core.load(alone.bundle).model.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=2e-3, msg=name)
    summary = json.loads((tmp_path / "two" / "run" / "summary.json").read_text(encoding="utf-8"))
    assert (summary["processes"], summary["samples_seen"]) == (2, 80)


def test_a_mistake_that_one_process_finds_ends_all_at_once(shards: str, tmp_path: Path) -> None:
    (tmp_path / "logs" / "run").mkdir(parents=True)
    (tmp_path / "logs" / "run" / "config.json").write_text("{}", encoding="utf-8")
    done = torchrun(2, words_of(shards, tmp_path / "logs", "--batch-size", "4"))
    assert done.returncode != 0
    own = "clip-train: error: "
    assert f"{own}{tmp_path / 'logs' / 'run'} already holds a run" in done.stderr
    assert f"{own}Process 0 of 2 cannot go on: {tmp_path / 'logs' / 'run'} already holds a run" in done.stderr
