from __future__ import annotations

from typing import Any

import pytest

from clip_train import TrainConfig
from clip_train.measuring.split import LOOP, READING, Split, advise, describe


def workers(count: int, **fields: Any) -> TrainConfig:
    return TrainConfig.of(model="tiny", train_data="a.tar", workers=count, **fields)


def step(**seconds: float) -> dict[str, Any]:
    parts = {f"{part}_seconds": seconds.get(part, 0.0) for part in (*LOOP, *READING) if part != "rest"}
    taken = sum(seconds.get(part, 0.0) for part in LOOP if part != "beside")
    return {"samples_per_second": 8 / taken, "step_seconds": taken, **parts}


def test_parts_of_the_loop_add_up_to_its_time() -> None:
    split = Split([step(wait=3.0, forward=1.0, backward=0.5, rest=0.5, beside=1.0, read=2.0, decode=8.0)] * 4)
    assert split.steps == 4
    assert split.samples == pytest.approx(32)
    assert split.seconds == pytest.approx(24.0)
    assert sum(split.loop.values()) == pytest.approx(split.seconds)
    assert split.loop["rest"] == pytest.approx(2.0)
    assert split.share("wait") == pytest.approx(0.5)
    assert split.share_of_reading("decode") == pytest.approx(0.8)
    assert Split([{"step": 1, "loss": 2.0}]).steps == 0
    table = [line.split() for line in describe(split)]
    assert ["waiting", "for", "data", "3000.00", "ms", "50.0", "%"] in table
    assert ["decode", "8000.00", "ms", "80.0", "%"] in table


def test_slow_data_is_said_with_what_to_do() -> None:
    split = Split([step(wait=6.3, forward=3.7, read=2.0, decode=8.0)])
    first, remedy = advise(split, workers(1), cores=8)
    assert first == "the data is too slow: the loop waited 63 % of the time; decode takes 80 % of the reading"
    # Ten seconds of reading for a step that would take 3.7 without waiting.
    assert remedy == "give --workers 3: 3 would keep up"
    assert "this machine has cores for; 3 would keep up" in advise(split, workers(1), cores=2)[1]
    assert "store smaller pictures" in advise(split, workers(2), cores=2)[1]
    storage = Split([step(wait=6.3, forward=3.7, read=8.0, decode=2.0)])
    assert "faster storage" in advise(storage, workers(2), cores=2)[1]


def test_what_the_run_does_already_or_cannot_do_is_no_remedy() -> None:
    split = Split([step(wait=6.3, forward=3.7, augment=8.0)])
    assert "take --image-resizer torch" in advise(split, workers(2), cores=2)[1]
    for config in (workers(2, image_resizer="torch"), workers(2, use_naflex=True)):
        said = advise(split, config, cores=2)[1]
        assert "a cheaper augmentation" in said
        assert "--image-resizer" not in said


def test_other_losses_of_time_are_said_too() -> None:
    assert advise(Split([step(wait=0.1, forward=9.9)]), workers(0), cores=1) == [
        "the data keeps up: the loop waited 1 % of the time"
    ]
    said = advise(Split([step(forward=4.0, communication=3.0, beside=3.0)]), workers(0), cores=1)
    assert "slowest of them 30 %" in said[1]
    assert "saving and evaluating take 30 %" in said[2]
    assert (describe(Split()), advise(Split(), workers(0), cores=1)) == ([], [])
