from __future__ import annotations

import time

import pytest
import torch

from clip_train.measuring.clock import STAGES, StepClock


def test_a_stage_has_what_passed_since_the_last_mark() -> None:
    clock = StepClock(torch.device("cpu"))
    clock.start()
    time.sleep(0.02)
    clock.mark("forward")
    clock.mark("backward")
    time.sleep(0.01)
    clock.mark("forward")
    laps = clock.take()
    found = laps.seconds()
    assert tuple(found) == STAGES
    assert found["forward"] >= 0.03 > 0.01 > found["backward"] >= 0
    assert found["loss"] == 0
    assert laps.idle() is None
    time.sleep(0.02)
    clock.start()
    clock.mark("transfer")
    idle = clock.take().idle()
    assert idle is not None
    assert idle >= 0.02


@pytest.mark.gpu
def test_marks_on_a_gpu_are_read_without_waiting_for_it() -> None:
    device = torch.device("cuda")
    matrix = torch.randn(4096, 4096, device=device)
    torch.cuda.synchronize()
    clock = StepClock(device)
    begin = time.perf_counter()
    clock.start()
    for _ in range(50):
        matrix = matrix @ matrix
    clock.mark("forward")
    clock.mark("backward")
    queued = time.perf_counter() - begin
    torch.cuda.synchronize()
    whole = time.perf_counter() - begin
    found = clock.take().seconds()
    assert queued < whole
    assert 0.5 * whole < found["forward"] <= whole
    assert found["backward"] < 0.1 * whole
