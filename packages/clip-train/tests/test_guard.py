from __future__ import annotations

import logging
import math

import pytest

from clip_train import TrainingDiverged
from clip_train.guard import MOST_IN_A_ROW, FiniteGuard


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_what_is_not_finite_is_not_admitted(loss: float, norm: float, caplog: pytest.LogCaptureFixture) -> None:
    guard = FiniteGuard()
    with caplog.at_level(logging.WARNING, "clip_train"):
        assert not guard.admits(7, loss, norm)
    assert guard.skipped == 1
    assert "step 7" in caplog.text
    assert guard.admits(8, 1.0, 1.0)


def test_only_steps_in_a_row_end_the_run() -> None:
    guard = FiniteGuard()
    for step in range(5 * MOST_IN_A_ROW):
        guard.admits(step, math.nan if step % MOST_IN_A_ROW else 1.0, 1.0)
        guard.check(step)
    assert guard.skipped == 5 * (MOST_IN_A_ROW - 1)
    guard.admits(99, math.nan, 1.0)
    with pytest.raises(TrainingDiverged, match=f"{MOST_IN_A_ROW} steps in a row, the last at step 99"):
        guard.check(99)
