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


def admitted(guard: Guard, norms: list[float]) -> list[bool]:
    return [bool(guard.admits(torch.tensor(1.0), torch.tensor(norm))) for norm in norms]


def calm(count: int) -> list[float]:
    generator = torch.Generator().manual_seed(0)
    return torch.exp(0.2 * torch.randn(count, generator=generator)).tolist()


def test_a_spike_is_not_admitted_where_it_is_asked_for() -> None:
    guard = Guard(spike=6.0)
    assert all(admitted(guard, calm(100)))
    assert admitted(guard, [1e4, math.nan, 1.1, 0.01]) == [False, False, True, True]
    assert admitted(Guard(), [*calm(100), 1e4]) == [True] * 101


def test_what_was_skipped_does_not_count_as_usual() -> None:
    guard, other = Guard(spike=6.0), Guard(spike=6.0)
    admitted(guard, calm(60))
    admitted(other, calm(60))
    admitted(guard, [1e4] * 5 + [math.inf])
    assert guard.state_dict()["norms"] == other.state_dict()["norms"]


def test_the_statistics_are_the_mean_and_the_variance_of_the_logarithms() -> None:
    guard, norms = Guard(spike=6.0), calm(80)
    admitted(guard, norms)
    logs = torch.tensor(norms, dtype=torch.float64).log()
    mean, variance, count = guard.state_dict()["norms"]
    assert mean == pytest.approx(logs.mean().item(), rel=1e-4)
    assert variance == pytest.approx(logs.var(correction=0).item(), rel=1e-3)
    assert count == 80


def test_nothing_is_a_spike_before_there_is_something_to_compare_with() -> None:
    assert all(admitted(Guard(spike=6.0), [1.0, 1e4, 1.0, 1e4]))


def test_a_guard_of_spikes_goes_on_from_a_checkpoint() -> None:
    guard, other = Guard(spike=6.0), Guard(spike=6.0)
    admitted(guard, calm(50))
    other.load_state_dict(guard.state_dict())
    assert admitted(other, [1e4, 1.0]) == [False, True]
    guard.note(51, 3.0, 1e4, updated=False)
    guard.note(52, math.nan, 1.0, updated=False)
    other.load_state_dict(guard.state_dict())
    assert (other.skipped, other.spikes, other.in_a_row) == (2, 1, 2)
