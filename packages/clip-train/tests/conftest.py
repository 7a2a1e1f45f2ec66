"""What several tests use: small shards of distinct pictures with captions, a configuration that trains on them, and
what losses over several processes gave."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import webdataset

from clip_train import TrainConfig
from forked_runs import Inject, Processes, fields_of, losses

WORDS = ("red", "green", "blue", "dark", "pale", "round", "long", "old", "wide", "calm")


def png(number: int, size: int = 32) -> bytes:
    """A picture that no other number has."""
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def pair(number: int) -> dict[str, Any]:
    """Sample `number` as webdataset writes it."""
    return {
        "__key__": f"s{number:07d}",
        "png": png(number),
        "txt": f"a {WORDS[number % 10]} thing number {number}".encode(),
    }


def write_shard(path: Path, samples: Sequence[Mapping[str, Any]]) -> Path:
    with webdataset.TarWriter(str(path)) as writer:
        for sample in samples:
            writer.write(dict(sample))
    return path


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Several test runs on one machine must not wait for each other's threads; sums keep one order too."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def untouched_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line sets this for its own process; in a test the process goes on."""
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """Makers of samples: `png(number)`, `pair(number)`, `shard(path, samples)`."""
    return SimpleNamespace(png=png, pair=pair, shard=write_shard)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The pattern of two shards with 40 good samples."""
    folder = tmp_path_factory.mktemp("shards")
    write_shard(folder / "00000.tar", [pair(n) for n in range(24)])
    write_shard(folder / "00001.tar", [pair(n) for n in range(24, 40)])
    return f"{folder}/{{00000..00001}}.tar"


@pytest.fixture
def make_config(shards: str, tmp_path: Path) -> Callable[..., TrainConfig]:
    """Builds a run of a few steps on `shards`, in the processor's own arithmetic, under the test's folder."""

    def make(**fields: Any) -> TrainConfig:
        given = {
            "model": "tiny",
            "train_data": shards,
            "batch_size": 8,
            "epochs": 1,
            "lr": 1e-3,
            "warmup": 2,
            "workers": 0,
            "device": "cpu",
            "precision": "fp32",
            "logs": str(tmp_path / "logs"),
        }
        return TrainConfig.of(**{**given, **fields})

    return make


@pytest.fixture(scope="session")
def loss_worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int] | str, Any]:
    """What the cases of `loss_world.py` gave, by (world, rank); "absent": what a process says whose partner failed."""
    folder = tmp_path_factory.mktemp("worlds")
    command = [sys.executable, str(Path(__file__).with_name("loss_world.py")), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    names = [(world, rank) for world in range(1, 5) for rank in range(world)]
    found: dict[tuple[int, int] | str, Any] = {name: torch.load(folder / "{}-{}.pt".format(*name)) for name in names}
    found["absent"] = torch.load(folder / "absent-0.pt")
    return found


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


@pytest.fixture(scope="session")
def whole(shards: str, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, float, str]]:
    """What two processes log that nothing happens to."""
    folder = tmp_path_factory.mktemp("whole")
    run = Processes(folder, 2, fields_of(shards, folder / "logs", "whole"), lambda rank: None)
    assert run.wait(0, 1) == [0, 0], run.err(0)
    return losses(run.run)
