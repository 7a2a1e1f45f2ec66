"""Damaged data in whole runs: what is lost is counted, and too much of it ends the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clip_core.errors import DataError
from clip_train import TrainConfig, train
from clip_train.data import bad_data, indexing
from clip_train.data.bad_data import BadDataLimit

Make = Callable[..., TrainConfig]


def test_more_than_the_fraction_ends_the_run() -> None:
    seen: list[int] = []
    limit = BadDataLimit(lambda record: seen.append(record["step"]), 0.1)
    for step in range(1, 31):
        limit({"step": step, "batch": 50, "skipped_samples": 5})

    def go_on() -> None:
        for step in range(31, 40):
            limit({"step": step, "batch": 50, "skipped_samples": 6})

    with pytest.raises(DataError, match=r"15\d of 1[56]\d\d samples could not be used.*--max-bad-fraction 0.1"):
        go_on()
    # The step that was one too many has its record.
    assert seen == list(range(1, seen[-1] + 1))


def test_a_few_bad_samples_end_no_run() -> None:
    limit = BadDataLimit(lambda record: None, 0.0)
    for step in range(bad_data.LEAST):
        limit({"step": step, "batch": 8, "skipped_samples": 1})
    with pytest.raises(DataError):
        limit({"step": 0, "batch": 8, "skipped_samples": 1})


@pytest.fixture
def damaged(tmp_path: Path, make: Any) -> Path:
    """A shard that was indexed while it was whole, and rots since."""
    from clip_train.data.shards import ShardSource

    path = make.shard(tmp_path / "x.tar", [make.pair(n) for n in range(60)])
    assert len(ShardSource(str(path))) == 60
    data = bytearray(path.read_bytes())
    data[40_000:60_000] = b"\xa5" * 20_000
    path.write_bytes(data)
    return path


@pytest.mark.failure(
    "corrupt tar",
    promise="The index knows what was there: what is lost is counted per shard, the run trains on the "
    "rest, and too much loss ends it.",
)
@pytest.mark.parametrize("guarded", [True, False])
def test_a_run_on_a_rotten_shard_counts_what_it_lost_and_trains_on_the_rest(
    damaged: Path, make_config: Make, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    if not guarded:
        monkeypatch.setattr(indexing, "_is_same_shard", lambda table, before: False)
    result = train(make_config(train_data=str(damaged), epochs=1, batch_size=10, max_bad_fraction=0.3))
    summary = json.loads((result.folder / "summary.json").read_text())
    if not guarded:
        # Nobody knows what there was, and all later samples have other numbers.
        assert summary["damaged_shards"][str(damaged)]["lost"] is None
        assert summary["samples"] < 60
        return
    lost = summary["damaged_shards"][str(damaged)]["lost"]
    assert 3 < lost < 12
    assert summary["samples"] == 60
    # The pictures whose header stands and whose bytes rot are found when they are decoded.
    assert lost <= summary["skipped_samples"] <= lost + 2
    assert summary["skipped_by_shard"] == {str(damaged): summary["skipped_samples"]}
    assert len(summary["data_fingerprint"]) == 64
    records = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    counted = sum(record["skipped_samples"] for record in records)
    assert counted == summary["skipped_slots"] == summary["skipped_samples"]


def test_a_run_ends_when_too_much_cannot_be_used(
    tmp_path: Path, make: Any, make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bad_data, "LEAST", 10)
    samples = [{**make.pair(n), **({"png": b"no image"} if n % 2 else {})} for n in range(60)]
    path = make.shard(tmp_path / "y.tar", samples)
    with pytest.raises(DataError, match=r"samples could not be used, more than --max-bad-fraction 0\.1"):
        train(make_config(train_data=str(path), epochs=4, batch_size=10, name="bad"))
    folder = tmp_path / "logs" / "bad"
    assert not (folder / "bundle").exists()
    assert json.loads((folder / "summary.json").read_text())["finished"] is False


def test_a_run_that_goes_on_remembers_what_it_has_lost(
    tmp_path: Path, make: Any, make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [{**make.pair(n), **({"png": b"no image"} if n % 2 else {})} for n in range(60)]
    given = {"train_data": str(make.shard(tmp_path / "y.tar", samples)), "batch_size": 10, "lr_scheduler": "const"}

    def stopped(**more: Any) -> tuple[str, int]:
        """What ends a run of four epochs, and after which step."""
        with pytest.raises(DataError) as raised:
            train(make_config(**given, epochs=4, **more))
        return str(raised.value), len((tmp_path / "logs" / more["name"] / "metrics.jsonl").read_text().splitlines())

    first = train(make_config(**given, name="parts"))
    lost = json.loads((first.folder / "summary.json").read_text())["skipped_slots"]
    # One epoch is within the limit, and so would be another one alone.
    monkeypatch.setattr(bad_data, "LEAST", lost + 12)
    words, steps = stopped(name="whole")
    assert 6 < steps < 12
    assert stopped(name="parts", resume="latest") == (words, steps)
