from __future__ import annotations

import logging
import math

import pytest
import torch

from clip_train import TrainingDiverged
from clip_train.guard import MOST_IN_A_ROW, Guard


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_what_is_not_finite_is_not_admitted(loss: float, norm: float) -> None:
    assert not Guard().admits(torch.tensor(loss), torch.tensor(norm))
    assert Guard().admits(torch.tensor(1.0), torch.tensor(1.0))


def test_a_skipped_step_is_counted_and_named(caplog: pytest.LogCaptureFixture) -> None:
    guard = Guard()
    with caplog.at_level(logging.WARNING, "clip_train"):
        guard.note(7, math.nan, 1.0, updated=False)
    guard.note(8, 1.0, 1.0, updated=True)
    assert guard.skipped == 1
    assert "step 7" in caplog.text
    assert "step 8" not in caplog.text


def test_only_steps_in_a_row_end_the_run() -> None:
    guard = Guard()
    for step in range(5 * MOST_IN_A_ROW):
        guard.note(step, math.nan, 1.0, updated=step % MOST_IN_A_ROW == 0)
        guard.check(step)
    assert guard.skipped == 5 * (MOST_IN_A_ROW - 1)
    guard.note(99, math.nan, 1.0, updated=False)
    with pytest.raises(TrainingDiverged, match=f"{MOST_IN_A_ROW} steps in a row, the last at step 99"):
        guard.check(99)


def test_a_guard_goes_on_from_a_checkpoint() -> None:
    guard, other = Guard(), Guard()
    for step in range(MOST_IN_A_ROW - 1):
        guard.note(step, math.nan, 1.0, updated=False)
    other.load_state_dict(guard.state_dict())
    other.check(8)
    other.note(9, math.nan, 1.0, updated=False)
    with pytest.raises(TrainingDiverged):
        other.check(9)
