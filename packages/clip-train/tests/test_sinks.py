"""Numbers reach the services, and a service that fails reaches nobody."""

from __future__ import annotations

import logging
import math
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from clip_core.errors import ConfigError
from clip_train import TrainConfig, sinks
from clip_train.sinks import Sinks, open_sinks

Make = Callable[..., TrainConfig]


def test_report_to_takes_open_clips_words(make_config: Make) -> None:
    assert make_config().logging.sinks == ()
    assert make_config(report_to="wandb,tensorboard").logging.sinks == ("tensorboard", "wandb")
    assert make_config(report_to="all").logging.sinks == ("tensorboard", "wandb", "trackio")
    with pytest.raises(ConfigError, match="tensorbord"):
        make_config(report_to="tensorbord")


def test_tensorboard_has_what_was_sent(make_config: Make, tmp_path: Path) -> None:
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    opened = open_sinks(make_config(name="mine", report_to="tensorboard"), tmp_path)
    for step in (1, 2, 3):
        opened.add({"train/loss": 4.0 / step, "train/lr": 1e-3, "train/grad_norm": math.nan}, step)
    opened.add({"val/image_to_text_R@1": 0.25}, 3)
    opened.close()
    held = loader.EventAccumulator(str(tmp_path / "tensorboard"))
    held.Reload()
    assert set(held.Tags()["scalars"]) == {"train/loss", "train/lr", "val/image_to_text_R@1"}
    found = [(event.step, event.value) for event in held.Scalars("train/loss")]
    assert found == [(1, 4.0), (2, 2.0), (3, pytest.approx(4 / 3))]


def test_tensorboard_shows_each_step_once_where_a_run_goes_on_or_back(make_config: Make, tmp_path: Path) -> None:
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = make_config(name="mine", report_to="tensorboard")

    def sent(going_on_from: int, steps: Sequence[int], value: float) -> list[tuple[int, float]]:
        opened = open_sinks(config, tmp_path, step=going_on_from)
        for step in steps:
            opened.add({"train/loss": value + step / 100}, step)
        opened.close()
        held = loader.EventAccumulator(str(tmp_path / "tensorboard"))
        held.Reload()
        return [(event.step, round(event.value, 4)) for event in held.Scalars("train/loss")]

    assert sent(0, (2, 4, 6), 1.0) == [(2, 1.02), (4, 1.04), (6, 1.06)]
    # Saved after step 4; in the last one the guard takes the run back to 4.
    assert sent(4, (6,), 2.0) == [(2, 1.02), (4, 1.04), (6, 2.06)]
    assert sent(6, (8, 6, 8), 3.0) == [(2, 1.02), (4, 1.04), (6, 3.06), (8, 3.08)]


def test_wandb_offline_keeps_a_run(make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    opened = open_sinks(make_config(name="a:b", report_to="wandb", wandb_notes="first"), tmp_path)
    opened.add({"train/loss": 4.0}, 1)
    opened.close()
    (kept,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert kept.name == "run-a-b.wandb"
    body = kept.read_bytes()
    assert b"train/loss" in body
    assert b"first" in body


def test_wandb_without_a_login_is_left_alone(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake: Any = types.ModuleType("wandb")
    fake.login = lambda prompt: False
    fake.init = lambda **named: pytest.fail("would ask for the key")
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with caplog.at_level(logging.WARNING):
        open_sinks(make_config(name="mine", report_to="wandb"), tmp_path).add({"train/loss": 1.0}, 1)
    assert "no login; run `wandb login`" in caplog.text
    assert "the training goes on" in caplog.text


def test_trackio_gets_what_wandb_gets(make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []
    fake: Any = types.ModuleType("trackio")
    fake.init = lambda **named: calls.append(("init", (named["project"], named["name"], named["config"]["lr"])))
    fake.log = lambda values, step: calls.append(("log", (values, step)))
    fake.finish = lambda: calls.append(("finish", None))
    monkeypatch.setitem(sys.modules, "trackio", fake)
    opened = open_sinks(make_config(name="mine", report_to="trackio", wandb_project_name="cats"), tmp_path)
    opened.add({"train/loss": 4.0}, 1)
    opened.close()
    assert calls == [("init", ("cats", "mine", 1e-3)), ("log", ({"train/loss": 4.0}, 1)), ("finish", None)]


class Broken:
    def __init__(self) -> None:
        self.calls = 0

    def add(self, values: Any, step: int) -> None:
        self.calls += 1
        raise ConnectionError("the network is unreachable")

    def close(self) -> None:
        raise AssertionError("is not asked again")


def test_a_sink_that_fails_is_said_once_and_asked_no_more(caplog: pytest.LogCaptureFixture) -> None:
    broken = Broken()
    both = Sinks({"wandb": broken})
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            both.add({"train/loss": 1.0}, step)
        both.close()
    assert broken.calls == 1
    assert caplog.text.count("the network is unreachable") == 1


def test_what_is_not_installed_says_how_to_install_it(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(sinks.importlib, "import_module", absent)
    with caplog.at_level(logging.WARNING):
        open_sinks(make_config(name="mine", report_to="trackio"), tmp_path)
    assert "pip install 'clip-train[trackio]'" in caplog.text
