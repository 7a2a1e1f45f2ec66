from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from clip_train.checkpoint import ledger


def write(path: Path, steps: range, end: str = "") -> Path:
    path.write_text("".join(json.dumps({"step": step, "loss": 1 / step}) + "\n" for step in steps) + end)
    return path


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("end", ["", '{"step": 11, "lo', '{"step": 11}', "\n", "[]\n", "3\n"])
def test_what_came_after_the_checkpoint_is_cut_off(tmp_path: Path, end: str, caplog: pytest.LogCaptureFixture) -> None:
    for step in (0, 4, 10):
        path = write(tmp_path / "metrics.jsonl", range(1, 11), end)
        before = path.read_bytes()
        ledger.cut(path, step)
        assert steps(path) == list(range(1, step + 1))
        assert before.startswith(path.read_bytes())
    assert not caplog.records


def test_records_that_are_missing_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "metrics.jsonl", range(1, 6))
    with caplog.at_level(logging.WARNING):
        ledger.cut(path, 8)
        ledger.cut(tmp_path / "gone.jsonl", 8)
        ledger.cut(tmp_path / "never.jsonl", 0)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        f"{path} ends at step 5, not at 8",
        f"{tmp_path / 'gone.jsonl'} is gone",
    ]


def test_another_run_begins_with_the_records_of_the_first(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", range(1, 11))
    ledger.carry_over(source, tmp_path / "b.jsonl", 7)
    assert steps(tmp_path / "b.jsonl") == list(range(1, 8))
    assert steps(source) == list(range(1, 11))
    ledger.carry_over(tmp_path / "gone.jsonl", tmp_path / "c.jsonl", 7)
    assert not (tmp_path / "c.jsonl").exists()
