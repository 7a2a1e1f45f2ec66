from __future__ import annotations

import json
import logging
import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from clip_train.data.decode import Batch, Skipped
from clip_train.data.shards import ShardSource
from clip_train.metrics import MetricsFile, RecordFile, SampleAccount


def strict(text: str) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_records_are_strict_json_and_losses_keep_every_bit(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    loss = torch.tensor(2.0).log().item()
    with MetricsFile(path) as metrics:
        for value in (loss, math.nan, math.inf):
            metrics.write({"step": 1, "loss": value, "grad_norm": value})
            # Flushed: another process reads it while the run goes on.
            last = strict(path.read_text(encoding="utf-8").splitlines()[-1])
            assert last["finite"] is math.isfinite(value)
    lines = [strict(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert lines[0] == {"step": 1, "loss": loss, "grad_norm": loss, "finite": True}
    assert lines[1] == {"step": 1, "loss": None, "grad_norm": None, "finite": False}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_what_a_full_disk_refuses_is_written_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsFile(path) as metrics:
        metrics.write({"step": 1, "loss": 1.0})
        path.rename(tmp_path / "kept")
        path.symlink_to("/dev/full")
        for step in (2, 3, 4):
            metrics.write({"step": step, "loss": 1.0})
        with pytest.raises(OSError, match="No space left"):
            metrics.sync()
        # Training went back to step 2.
        metrics.write({"step": 3, "loss": 0.5})
        path.unlink()
        (tmp_path / "kept").rename(path)
        metrics.write({"step": 4, "loss": 0.5})
        metrics.sync()
    lines = [strict(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.0), (2, 1.0), (3, 0.5), (4, 0.5)]
    assert caplog.text.count("its records wait in memory") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_records_that_are_lost_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsFile(path) as metrics:
        path.unlink()
        path.symlink_to("/dev/full")
        metrics.write({"step": 1, "loss": 1.0})
    assert f"1 records of {path} are lost" in caplog.text


def test_half_a_line_is_taken_back(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path, limit = tmp_path / "x.jsonl", resource.getrlimit(resource.RLIMIT_FSIZE)
    file = RecordFile(path)
    file.add(1, "a" * 60)
    # Beyond the limit the system writes what still fits.
    honest = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
        file.add(2, "b" * 60)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, honest)
    assert path.read_text(encoding="utf-8") == "a" * 60 + "\n"
    file.add(3, "c")
    assert path.read_text(encoding="utf-8").splitlines() == ["a" * 60, "b" * 60, "c"]


def test_the_account_counts_slots_and_samples_and_names_each_sample_once(
    shards: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = ShardSource(shards)
    account = SampleAccount(source)
    batch = Batch(torch.empty(0), torch.empty(0), torch.empty(0), [Skipped(2, "torn"), Skipped(30, "blank")], [5, 6])
    with caplog.at_level(logging.WARNING, "clip_train"):
        account.add(batch)
        account.add(batch)
    assert (account.skipped_slots, account.skipped_samples) == (4, 2)
    assert (account.truncated_slots, account.truncated_captions) == (4, 2)
    assert caplog.text.count("torn") == 1
    assert f"{source.groups[0]}:s0000002" in caplog.text
    summary = json.loads(json.dumps(account.summary(), allow_nan=False))
    assert summary["skipped_by_shard"] == {source.groups[0]: 1, source.groups[1]: 1}
    assert summary["skipped"] == {source.label(2): "torn", source.label(30): "blank"}
    assert (summary["samples"], summary["truncated_captions"]) == (40, 2)


def test_many_bad_samples_are_not_as_many_lines(caplog: pytest.LogCaptureFixture) -> None:
    class Bad:
        groups = tuple(f"{number}.tar" for number in range(200))

        def group(self, index: int) -> int:
            return index // 500

        def label(self, index: int) -> str:
            return f"{self.groups[self.group(index)]}:{index}"

        def __len__(self) -> int:
            return 10**5

        def facts(self) -> dict[str, int]:
            return {}

    account = SampleAccount(Bad())  # type: ignore[arg-type]
    empty = torch.empty(0)
    with caplog.at_level(logging.WARNING, "clip_train"):
        for first in range(0, 10**5, 5000):
            bad = [Skipped(index, "torn") for index in range(first, first + 5000)]
            account.add(Batch(empty, empty, empty, bad, []))
        account.say()
    assert len(caplog.records) < 2000
    assert "skipped 199.tar" not in caplog.text
    assert caplog.text.count("skipped 7.tar:") == 10
    assert "more samples of 7.tar that are skipped are counted, not named" in caplog.text
    said = caplog.records[-1].getMessage()
    assert "100000 different samples could not be used, 100000 times; of 0.tar 500, " in said
    assert "and 195 more; summary.json names them all" in said
    summary = account.summary()
    assert len(summary["skipped"]) == 10**5
    assert summary["skipped_by_shard"] == dict.fromkeys(Bad.groups, 500)
