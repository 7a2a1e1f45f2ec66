"""Going back alone; in real processes, and past the data, it is in test_failures."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from clip_train import TrainConfig, TrainingDiverged, train, trainer
from clip_train.guard import MOST_IN_A_ROW, Guard
from clip_train.rollback import RollBack

YES = torch.tensor(True)


def exhausted(rollbacks: int = 0) -> Any:
    guard = Guard()
    guard.in_a_row, guard.skipped, guard.rollbacks = MOST_IN_A_ROW, 12, rollbacks
    return SimpleNamespace(guard=guard, state=SimpleNamespace(steps=30, data_offset=2), settle=lambda: None)


def go_back(running: Any) -> str:
    running.guard.load_state_dict(Guard().state_dict())
    running.state.steps, running.state.data_offset = 20, 0
    return "step-20"


def test_the_data_goes_on_where_it_was_and_nothing_is_forgotten() -> None:
    running, forgotten = exhausted(), []
    RollBack(go_back, most=3, forget=forgotten.append).after_step(running, YES)
    # Step 30 had read up to 32; the next step is 21, and reads what comes then.
    assert (running.state.steps, running.state.data_offset) == (20, 12)
    assert (running.guard.skipped, running.guard.in_a_row, running.guard.rollbacks) == (12, 0, 1)
    assert forgotten == [20]


def test_there_is_a_limit_and_there_has_to_be_a_checkpoint() -> None:
    with pytest.raises(TrainingDiverged, match="went back to a checkpoint 3 times"):
        RollBack(go_back, most=3).after_step(exhausted(3), YES)
    with pytest.raises(TrainingDiverged, match="no checkpoint to go back to"):
        RollBack(lambda running: None, most=3).after_step(exhausted(), YES)


def test_a_good_step_whose_numbers_come_late_is_not_rolled_back() -> None:
    running = exhausted()
    running.settle = lambda: running.guard.note(31, 1.0, 1.0, updated=True)
    RollBack(go_back, most=3).after_step(running, YES)
    assert (running.state.steps, running.guard.rollbacks) == (30, 0)


def test_a_run_that_stays_bad_ends_after_its_roll_backs(
    make_config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, calls = trainer.backward, iter(range(1, 1000))

    def spoiled(*arguments: Any, **more: Any) -> Any:
        losses = honest(*arguments, **more)
        return losses if next(calls) <= 4 else {name: loss * float("nan") for name, loss in losses.items()}

    monkeypatch.setattr(trainer, "backward", spoiled)
    with pytest.raises(TrainingDiverged, match="went back to a checkpoint 1 times"):
        train(make_config(name="bad", epochs=8, save_every_n_steps=4, save_frequency=0, guard_rollbacks=1))
