"""What a run says of its own time: in the records, in the log, in the summary."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clip_train import TrainConfig, recording, train
from clip_train.measuring import pace
from clip_train.measuring.pace import Standing
from clip_train.measuring.split import LOOP, READING, Split
from clip_train.recording import FadingMean, duration
from clip_train.sinks import Sinks

Make = Callable[..., TrainConfig]


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


class Kept:
    def __init__(self) -> None:
        self.sent: dict[int, dict[str, float]] = {}

    def add(self, values: Any, step: int) -> None:
        self.sent[step] = dict(values)

    def close(self) -> None:
        self.sent[-1] = {}


def test_a_run_says_where_its_time_went(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept()
    monkeypatch.setattr("clip_train.run.open_sinks", lambda *given, **named: Sinks({"kept": kept}))
    monkeypatch.setattr(recording, "_peak_of", lambda plan: 1e12)
    result = train(
        make_config(name="mine", epochs=2, log_every_n_steps=3, log_metric_every_n_steps=4, copy_codebase=True)
    )
    lines = records(result.folder)
    for line in lines:
        parts = sum(line[f"{part}_seconds"] for part in LOOP if part not in ("rest", "beside"))
        assert 0 < parts <= line["step_seconds"] + 1e-6
        assert all(line[f"{part}_seconds"] > 0 for part in (*READING, "wait", "forward", "backward", "optimiser"))
        assert line["data_seconds"] >= line["wait_seconds"]
        assert 0 < line["mfu"] < 1
        # "a red thing number 12": beginning, five words or more, end.
        assert 6 <= line["text_tokens"] <= 16
    # Without workers all of making a batch is waiting for it.
    split = Split(lines)
    assert sum(split.reading.values()) == pytest.approx(split.loop["wait"], rel=0.2)
    summary = json.loads((result.folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["time"]["steps"] == 9
    assert sum(summary["time"]["loop_seconds"].values()) == pytest.approx(summary["time"]["seconds"])
    assert summary["peak_memory_bytes"] > 1e8
    assert summary["versions"]["torch"] == torch.__version__.split("+")[0]
    page = (result.folder / "report.html").read_text(encoding="utf-8")
    assert "10 of" not in page
    assert f"{lines[-1]['loss']:.4f}" in page
    log = (result.folder / "out.log").read_text(encoding="utf-8")
    assert re.search(r"step 6 of 10, loss [\d.]+ \(mean [\d.]+\), lr .*, gradient norm .* samples/s, .* left", log)
    assert [int(number) for number in re.findall(r"step (\d+) of 10,", log)] == [1, 3, 6, 9, 10]
    assert "waiting for data" in log
    assert all(sentence in log for sentence in summary["advice"])
    assert [step for step in kept.sent if step > 0] == [4, 8, 10]
    assert kept.sent[4]["train/loss"] == lines[3]["loss"]
    assert kept.sent[8]["train/scale"] == lines[7]["logit_scale"]
    assert kept.sent[8]["train/contrastive_loss"] == kept.sent[8]["train/loss"]
    assert -1 in kept.sent
    assert (result.folder / "code" / "clip_train" / "recording.py").is_file()


def test_slow_reading_is_named(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    from clip_core import train_pixels

    honest = train_pixels.open_image
    monkeypatch.setattr(train_pixels, "open_image", lambda *a, **k: (time.sleep(0.03), honest(*a, **k))[1])
    result = train(make_config(epochs=1))
    summary = json.loads((result.folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["advice"][0].startswith("the data is too slow: the loop waited")
    assert "decode takes" in summary["advice"][0]
    assert "--workers" in summary["advice"][1]


def test_every_host_may_write_a_log(make_config: Make, tmp_path: Path) -> None:
    from clip_train.run_folder import RunFolder

    folder = RunFolder(tmp_path / "run")
    with folder.logging(debug=False, rank=8):
        logging.getLogger("clip_train.x").info("from the second host")
    assert "from the second host" in (tmp_path / "run" / "out-8.log").read_text(encoding="utf-8")
    assert not folder.log.exists()


def test_the_mean_forgets_what_is_far_back() -> None:
    mean = FadingMean(100)
    assert mean.value is None
    mean.add(5.0, 10)
    assert mean.value == pytest.approx(5.0)
    mean.add(math.nan, 10)
    for _ in range(200):
        mean.add(1.0, 10)
    assert mean.value == pytest.approx(1.0)
    without = FadingMean(0)
    without.add(1.0, 10)
    assert without.value is None
    # Two values of equal weight on, the older has lost a factor of e.
    two = FadingMean(10)
    two.add(1.0, 10)
    two.add(0.0, 10)
    assert two.value == pytest.approx(math.exp(-1) / (1 + math.exp(-1)))


@pytest.mark.failure(
    "stragglers",
    promise="The slowest process is named with its time per step, and how much of it was waiting for data.",
)
def test_the_slowest_process_is_named() -> None:
    found = [{"host": f"node{rank}", "seconds": seconds, "waited": 0.5} for rank, seconds in enumerate((1.0, 3.0, 2.0))]
    standing = Standing(found)
    assert (standing.slowest, standing.is_notable) == (1, True)
    assert standing.describe() == (
        "process 1 on node1 is the slowest: 3000.0 ms a step before it meets the others, of which 50 % waiting for "
        "data; the fastest, 0, 1000.0 ms"
    )
    assert standing.record() == {"slowest_rank": 1, "slowest_rank_seconds": 3.0, "fastest_rank_seconds": 1.0}
    assert not Standing(found[1:2] * 3).is_notable
    assert pace.Pace(Split(), 5).latest is None


def test_durations_are_said_as_people_do() -> None:
    assert [duration(seconds) for seconds in (40, 720, 12_000, 187_200)] == ["40 s", "12 min", "3 h 20 min", "2 d 4 h"]
