from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from clip_train.data.decode import Batch, Skipped
from clip_train.data.shards import ShardSource
from clip_train.metrics import MetricsFile, SampleAccount


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
