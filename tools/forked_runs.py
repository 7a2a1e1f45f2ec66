"""Runs of several processes, forked from one that has torch loaded, for the tests that put faults into them.

Each process leaves a code and what it wrote to stderr. What this leaves out: the faults.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clip_core.errors import ClipError
from clip_train import TrainConfig, train, trainer

__all__ = ["Inject", "Processes", "fields_of", "losses", "records", "slowly"]

Inject = Callable[[int], object]
"""What is done in a process before it trains; takes its rank."""


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
    """The whole lines of metrics.jsonl in the folder `run`."""
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def losses(run: Path) -> list[tuple[int, float, str]]:
    """Step, loss and the hash of the samples of each record."""
    return [(record["step"], record["loss"], record["samples"]) for record in records(run)]


def fields_of(shards: str, logs: Path, name: str) -> dict[str, Any]:
    """The configuration of a run of 30 steps on the 40 samples of `shards`, for one of two processes."""
    return {
        "model": "tiny", "train_data": shards, "batch_size": 4, "epochs": 6, "lr": 1e-3, "warmup": 2, "workers": 0,
        "device": "cpu", "precision": "fp32", "logs": str(logs), "name": name, "save_frequency": 0,
    }  # fmt: skip


def slowly(seconds: float) -> None:
    """Every step takes `seconds` longer, so that something can happen meanwhile."""
    honest = trainer._step

    def step(*arguments: Any) -> Any:
        time.sleep(seconds)
        return honest(*arguments)

    trainer._step = step  # type: ignore[assignment]
