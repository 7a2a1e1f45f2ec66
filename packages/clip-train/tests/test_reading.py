from __future__ import annotations

from collections.abc import Callable

import pytest

from clip_train import TrainConfig
from clip_train.cli import main
from clip_train.data.spent import Spent
from clip_train.measuring.reading import Reading, advise_reading, measure_reading

Make = Callable[..., TrainConfig]


def test_reading_is_measured_without_training(make_config: Make) -> None:
    shown: list[int] = []
    reading = measure_reading(make_config(workers=1, worker_kind="thread"), seconds=0.2, show=shown.append)
    assert reading.samples == sum(shown) > 0
    assert reading.seconds >= 0.2
    assert min(reading.spent) > 0
    assert sum(map(reading.share, Spent._fields)) == pytest.approx(1)
    assert reading.skipped == 0


def test_advice_names_the_chief_part_and_what_is_left_to_give(make_config: Make) -> None:
    reading = Reading(samples=200, seconds=2.0, spent=Spent(read=0.1, decode=0.2, augment=1.5, tokenise=0.2), skipped=3)
    assert reading.lines()[0] == "100 samples/s: 200 in 2.0 s, 3 could not be used"
    assert reading.lines()[3].split() == ["augment", "7.50", "ms", "a", "sample", "75.0", "%"]
    assert [line.split(":")[0] for line in advise_reading(reading, make_config(workers=2), cores=8)] == [
        "augment takes 75 % of the reading",
        "give --workers 8",
    ]
    assert len(advise_reading(reading, make_config(workers=8), cores=8)) == 1


def test_the_command_prints_the_split(shards: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--train-data", shards, "--model", "tiny", "--batch-size", "8", "--workers", "0", "--no-progress"]
    assert main(["bench-data", *flags, "--image-resizer", "torch", "--seconds", "0.1"]) in (0, None)
    printed = capsys.readouterr().out
    assert " samples/s: " in printed
    assert all(f"  {part}" in printed for part in Spent._fields)
