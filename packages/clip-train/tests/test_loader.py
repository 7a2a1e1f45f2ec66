from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import clip_core
from clip_core.errors import ConfigError, DataError
from clip_core.preprocess import AugmentConfig
from clip_core.train_pixels import TrainPixels
from clip_train.data import loader
from clip_train.data.decode import Decoder
from clip_train.data.loader import Share, StepDataset, WorkerDied, explain_dead_workers, iterate_batches
from clip_train.data.order import Order
from clip_train.data.shards import ShardSource

CPU = torch.device("cpu")


def decoder(pattern: str) -> Decoder:
    source = ShardSource(pattern)
    pixels = TrainPixels(clip_core.get_config("tiny").preprocess)
    return Decoder(source, Order(0, len(source)), pixels, clip_core.get_tokenizer("tiny"))


def test_batches_do_not_depend_on_the_number_of_workers(shards: str) -> None:
    made = decoder(shards)
    alone = list(iterate_batches(made, Share(16), range(6), workers=0, device=CPU))
    together = list(iterate_batches(made, Share(16), range(6), workers=2, device=CPU))
    assert len(alone) == len(together) == 6
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.tokens, other.tokens)


@pytest.mark.parametrize("resizer", ["pillow", "torch"])
def test_threads_make_the_batches_of_processes(tmp_path: Path, make: Any, resizer: Any) -> None:
    samples = [make.pair(number) for number in range(30)]
    samples[4]["png"] = samples[4]["png"][:200]
    made = decoder(str(make.shard(tmp_path / "x.tar", samples)))
    augment = AugmentConfig(scale=(0.3, 1.0), hflip=0.5, gray_scale_prob=0.5)
    made.pixels = TrainPixels(clip_core.get_config("tiny").preprocess, augment, resizer=resizer)
    processes = list(iterate_batches(made, Share(8), range(1, 12), workers=2, device=CPU))
    state = torch.get_rng_state()
    threads = list(iterate_batches(made, Share(8), range(1, 12), workers=2, device=CPU, kind="thread"))
    assert len(threads) == 11
    for one, other in zip(processes, threads, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.tokens, other.tokens)
        assert (one.digest, one.skipped, one.truncated) == (other.digest, other.skipped, other.truncated)
    assert any(batch.skipped for batch in threads)
    assert torch.equal(state, torch.get_rng_state())


def test_threads_that_are_not_needed_any_more_end(shards: str) -> None:
    batches = iterate_batches(decoder(shards), Share(16), range(50), workers=2, device=CPU, kind="thread")
    next(batches)
    assert any(thread.name.startswith("clip-train worker") for thread in threading.enumerate())
    del batches
    assert not any(thread.name.startswith("clip-train worker") for thread in threading.enumerate())


def test_threads_are_refused_where_they_would_share_generators(shards: str) -> None:
    made = decoder(shards)
    made.pixels = TrainPixels(clip_core.get_config("tiny").preprocess, AugmentConfig(use_timm=True))
    with pytest.raises(ConfigError, match="--worker-kind thread: timm's augmentation"):
        iterate_batches(made, Share(16), range(2), workers=1, device=CPU, kind="thread")


def test_workers_start_beside_other_threads_without_a_warning(shards: str) -> None:
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    try:
        assert len(list(iterate_batches(decoder(shards), Share(16), range(2), workers=1, device=CPU))) == 2
    finally:
        done.set()
        other.join()


def test_spawned_workers_make_the_same_batches(shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = decoder(shards)
    (alone,) = iterate_batches(made, Share(16), range(1), workers=0, device=CPU)
    monkeypatch.setattr(loader, "_start_method", lambda: "spawn")
    (spawned,) = iterate_batches(made, Share(16), range(1), workers=1, device=CPU)
    assert torch.equal(alone.images, spawned.images)
    assert torch.equal(alone.tokens, spawned.tokens)


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_on_linux_workers_are_forked_whatever_python_prefers() -> None:
    assert loader._start_method() == "fork"


class _Killer(Decoder):
    def batch(self, slots: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_worker_that_is_killed_again_and_again_is_an_error_with_likely_causes(
    shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch looks every five seconds.
    monkeypatch.setattr(
        torch.utils.data.dataloader._MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.1,)
    )
    made = decoder(shards)
    killer = _Killer(made.source, made.order, made.pixels, made.tokenizer)
    with pytest.raises(WorkerDied, match=r"DataLoader worker .*memory.*__main__"), explain_dead_workers():
        list(iterate_batches(killer, Share(8), range(2), workers=1, device=CPU))


def test_other_runtime_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="out of memory") as caught, explain_dead_workers():
        raise RuntimeError("CUDA out of memory")
    assert not isinstance(caught.value, WorkerDied)


SCRIPT = """
from clip_train import TrainConfig, train
from clip_train.data import loader

loader._start_method = lambda: "spawn"
train(TrainConfig.of(model="tiny", train_data={data!r}, batch_size=8, epochs=1, workers=1, device="cpu", logs={logs!r}))
"""


def test_a_script_that_lacks_the_guard_is_told_so_and_makes_one_folder(shards: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.format(data=shards, logs=str(tmp_path / "logs")), encoding="utf-8")
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "ConfigError: Training was started again by a data worker" in done.stderr
    assert "WorkerDied: A data worker died" in done.stderr
    assert len(list((tmp_path / "logs").iterdir())) == 1


@pytest.mark.failure(
    "uneven ends",
    promise="Cannot happen: batches cross from one pass to the next, nothing is dropped or repeated.",
)
def test_batches_cross_from_one_pass_to_the_next_without_loss(shards: str) -> None:
    seen: list[tuple[int, int]] = []

    class Recorder(Decoder):
        def batch(self, slots: Any) -> Any:
            seen.extend(slots)

    made = decoder(shards)
    dataset = StepDataset(Recorder(made.source, made.order, made.pixels, made.tokenizer), Share(16))
    for step in range(5):
        dataset[step]
    assert seen == [(epoch, position) for epoch in range(2) for position in range(40)]


def test_a_run_may_begin_at_any_step(shards: str) -> None:
    made = decoder(shards)
    whole = list(iterate_batches(made, Share(8), range(5), workers=0, device=CPU))
    tail = list(iterate_batches(made, Share(8), range(3, 5), workers=0, device=CPU))
    assert torch.equal(tail[0].images, whole[3].images)


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_an_error_in_a_worker_keeps_its_type_and_its_words(tmp_path: Path, make: Any, kind: Any) -> None:
    path = make.shard(tmp_path / "x.tar", [make.pair(n) for n in range(8)])
    made = decoder(str(path))
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(DataError, match=r"x\.tar: short read") as caught:
        list(iterate_batches(made, Share(8), range(1), workers=1, device=CPU, kind=kind))
    assert "Traceback" not in str(caught.value)


def test_a_worker_keeps_quiet_of_an_interrupted_trainer_and_of_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    try:
        loader._start_worker(0)
        sys.excepthook(ConnectionResetError, ConnectionResetError("left"), None)
        assert capsys.readouterr().err == ""
        sys.excepthook(ValueError, ValueError("a defect"), None)
        assert "a defect" in capsys.readouterr().err
    finally:
        signal.signal(signal.SIGINT, before)
