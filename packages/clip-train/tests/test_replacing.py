from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from clip_train import TrainConfig, train
from clip_train.data import loader
from clip_train.data.decode import Decoder
from clip_train.data.replacing import MOST_IN_A_ROW, WorkerDied, replace_dead_workers


def look_for_dead_workers_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch looks every five seconds."""
    loader_of_torch = torch.utils.data.dataloader._MultiProcessingDataLoaderIter
    monkeypatch.setattr(loader_of_torch._try_get_data, "__defaults__", (0.1,))


DEAD = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")


def dying(at: list[int]) -> Callable[[range], Iterator[int]]:
    """Gives numbers, and dies before each number in `at`, once."""
    left = list(at)

    def make(numbers: range) -> Iterator[int]:
        for number in numbers:
            if left and number == left[0]:
                left.pop(0)
                raise DEAD
            yield number

    return make


def test_every_batch_comes_once_and_in_order_whatever_dies() -> None:
    assert list(replace_dead_workers(dying([0, 3, 4]), range(10))) == list(range(10))


def test_workers_that_keep_dying_end_the_run() -> None:
    at = [10 * number for number in range(1, MOST_IN_A_ROW + 2)]
    assert list(replace_dead_workers(dying(at[:-1]), range(100))) == list(range(100))
    with pytest.raises(WorkerDied, match="lack of memory"):
        list(replace_dead_workers(dying(at), range(100)))
    with pytest.raises(WorkerDied):
        list(replace_dead_workers(dying([5, 5, 5]), range(100)))
    # Now and then is not again and again.
    now_and_then = [200 * number for number in range(1, 20)]
    assert list(replace_dead_workers(dying(now_and_then), range(5000))) == list(range(5000))


def test_other_errors_stay_what_they_are() -> None:
    def make(numbers: range) -> Iterator[int]:
        raise RuntimeError("out of memory")
        yield 0

    with pytest.raises(RuntimeError, match="out of memory"):
        list(replace_dead_workers(make, range(2)))


class Dying(Decoder):
    """Kills the process that makes the batch that holds a certain slot, once."""

    victims: tuple[Path, tuple[int, int]]

    def batch(self, slots: Any) -> Any:
        mark, slot = self.victims
        slots = list(slots)
        if slot in slots and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().batch(slots)


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
@pytest.mark.failure(
    "worker killed",
    promise="The workers are replaced and their batches made again: the losses are the same to the bit.",
)
@pytest.mark.parametrize("guarded", [True, False])
def test_a_run_whose_worker_is_killed_gives_the_same_losses(
    make_config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    look_for_dead_workers_often(monkeypatch)
    expected = train(make_config(name="whole", epochs=2))
    monkeypatch.setattr("clip_train.plan.Decoder", Dying)
    monkeypatch.setattr(Dying, "victims", (tmp_path / "killed", (0, 37)), raising=False)
    if not guarded:
        monkeypatch.setattr(loader, "replace_dead_workers", lambda make, numbers: make(numbers))
        with pytest.raises(WorkerDied):
            train(make_config(name="killed", epochs=2, workers=2))
        return
    found = train(make_config(name="killed", epochs=2, workers=2))
    assert (tmp_path / "killed").exists()
    assert losses(found.folder) == losses(expected.folder)
    assert "the workers are replaced" in (found.folder / "out.log").read_text(encoding="utf-8")


def losses(folder: Path) -> list[tuple[int, float, str]]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(record["step"], record["loss"], record["samples"]) for record in records]
