"""How programs are started (clip_core.kernels.programs.launching), with a program and devices that are not there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

pytest.importorskip("triton", minversion="3.6")

from clip_core.kernels.programs.launching import LAUNCHES, launch


class Program:
    """Writes down what it was started with."""

    __name__ = "stand_in"

    def __init__(self, happened: list[Any]) -> None:
        self.happened = happened

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *arguments, **constants: self.happened.append((grid, len(arguments), constants))


def test_a_program_starts_on_the_device_of_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[Any] = []

    @contextlib.contextmanager
    def device_of(tensor: Tensor) -> Iterator[None]:
        happened.append(tensor.device)
        yield
        happened.append("back")

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    with FakeTensorMode():
        tensor = torch.empty(3, device="cuda:1")
    before = LAUNCHES["stand_in"]
    launch(Program(happened), (2, 3), 5, tensor, num_warps=4)
    started = ((2, 3), 2, {"enable_fp_fusion": True, "num_warps": 4})
    assert happened == [torch.device("cuda", 1), started, "back"]
    assert LAUNCHES["stand_in"] == before + 1


def test_an_empty_grid_starts_nothing() -> None:
    happened: list[Any] = []
    before = LAUNCHES["stand_in"]
    launch(Program(happened), (2, 0), torch.empty(3))
    assert not happened
    assert LAUNCHES["stand_in"] == before
