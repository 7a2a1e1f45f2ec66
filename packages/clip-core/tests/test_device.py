"""Names of devices: what this machine has, and a plain error for what it has not."""

from __future__ import annotations

import pytest
import torch

import clip_core
from clip_core.device import resolve_device
from clip_core.errors import ConfigError


def test_names_and_devices_are_taken() -> None:
    for device in ("cpu", torch.device("cpu")):
        assert resolve_device(device) == torch.device("cpu")
    assert resolve_device("meta", meta=True).type == "meta"
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device is 'cuda:3', but torch sees 0 CUDA devices here; use 'cpu'"):
        resolve_device("cuda:3")
    for name in ("cuad", "gpu", "tpu:0", "xpu", "hpu", "", "meta"):
        with pytest.raises(ConfigError, match=f"device is '{name}'; allowed: auto, cpu, cuda"):
            resolve_device(name)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no Metal GPU"):
        resolve_device("mps")
    for call in (clip_core.create_model, clip_core.create_model_and_transforms, clip_core.create):
        with pytest.raises(ConfigError, match="torch sees 0 CUDA devices"):
            call("tiny", device="cuda")
