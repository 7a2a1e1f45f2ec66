from __future__ import annotations

import pytest
import torch

from clip_core.errors import ConfigError
from clip_train.precision import autocast, resolve_device

CPU = torch.device("cpu")


def test_autocast_is_what_it_is_called() -> None:
    a = torch.ones(2, 2)
    with autocast("fp32", CPU):
        assert (a @ a).dtype == torch.float32
    with autocast("amp_bf16", CPU):
        assert (a @ a).dtype == torch.bfloat16


def test_auto_takes_the_gpu_where_there_is_one() -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == CPU


def test_a_device_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"'cuda'.*0 CUDA devices.*--device cpu"):
        resolve_device("cuda")


@pytest.mark.parametrize("name", ["gpu", "meta", "tpu:0", ""])
def test_a_device_that_is_none_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match=r"allowed: auto, cpu, cuda"):
        resolve_device(name)
