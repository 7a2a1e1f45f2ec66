"""A run of open_clip goes on here: one of its own models, trained and saved as `open_clip_train` does it.

Room: `clip_train.checkpoint.foreign`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import nn

import clip_core.presets
from clip_core.errors import CheckpointMismatch, ConfigError
from clip_core.presets.parts import model, text_tower
from clip_core.presets.vit import image_tower
from clip_train import TrainConfig, train
from clip_train.checkpoint.resume import find_origin
from clip_train.plan import prepare
from clip_train.trainer import Running, start

pytestmark = pytest.mark.parity

Make = Callable[..., TrainConfig]


@pytest.fixture(autouse=True)
def smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = model(16, image_tower(32, 16, 16, 1, 2, 64), text_tower(8, 2, 1, context_length=32))
    monkeypatch.setitem(clip_core.presets._PRESETS, "tiny", sizes)


def their_model() -> nn.Module:
    torch.manual_seed(3)
    found: nn.Module = open_clip.CLIP(
        16,
        {"image_size": 32, "patch_size": 16, "width": 16, "layers": 1, "head_width": 8, "mlp_ratio": 4.0},
        {"context_length": 32, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 2},
    )
    return found


def their_optimizer(trained: nn.Module, **settings: Any) -> torch.optim.Optimizer:
    """open_clip_train.main of 3.3.0 makes these groups."""
    named = list(trained.named_parameters())

    def excluded(name: str, parameter: nn.Parameter) -> bool:
        return parameter.ndim < 2 or "bn" in name or "ln" in name or "bias" in name or "logit_scale" in name

    groups = [
        {"params": [p for n, p in named if excluded(n, p)], "weight_decay": 0.0},
        {"params": [p for n, p in named if not excluded(n, p)], "weight_decay": 0.2},
    ]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), eps=1e-6, **settings)


def gradients(trained: nn.Module, seed: int) -> None:
    """The same gradient for a parameter of a name, whatever the order of parameters."""
    for name, parameter in trained.named_parameters():
        generator = torch.Generator().manual_seed(seed + sum(map(ord, name)))
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def save(path: Path, trained: nn.Module, optimizer: torch.optim.Optimizer, **more: Any) -> Path:
    state = {f"module.{name}": value for name, value in trained.state_dict().items()}
    torch.save({"epoch": 2, "name": "run", "state_dict": state, "optimizer": optimizer.state_dict(), **more}, path)
    return path


@pytest.fixture
def theirs(tmp_path: Path) -> tuple[Path, nn.Module, torch.optim.Optimizer]:
    trained = their_model()
    optimizer = their_optimizer(trained)
    for seed in range(3):
        gradients(trained, seed)
        optimizer.step()
    return save(tmp_path / "epoch_2.pt", trained, optimizer), trained, optimizer


def continued(config: TrainConfig) -> Running:
    running = start(prepare(config))
    origin = find_origin(config)
    assert origin is not None
    origin.restore(running)
    return running


def test_the_next_step_is_the_one_that_open_clip_would_take(
    make_config: Make, theirs: tuple[Path, nn.Module, torch.optim.Optimizer], caplog: pytest.LogCaptureFixture
) -> None:
    path, trained, optimizer = theirs
    with caplog.at_level("INFO"):
        running = continued(make_config(resume=str(path), epochs=4))
    assert (running.state.steps, running.state.samples_seen) == (10, 80)
    assert "going on after epoch 2 of" in caplog.text
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    ours = running.plan.bundle.model
    before = copy.deepcopy(ours.state_dict())
    for each in (trained, ours):
        gradients(each, 7)
    optimizer.step()
    running.optimizer.step()
    expected = dict(trained.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=0, atol=1e-6, msg=name)
        assert not torch.equal(parameter, before[name])


def test_a_run_goes_on_from_the_file(make_config: Make, theirs: tuple[Path, nn.Module, torch.optim.Optimizer]) -> None:
    result = train(make_config(resume=str(theirs[0]), epochs=3, name="mine"))
    assert result.steps == 15
    assert len((result.folder / "metrics.jsonl").read_text().splitlines()) == 5
    again = train(make_config(resume="latest", epochs=4, name="mine"))
    assert again.steps == 20


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content.pop("optimizer"), "it holds no optimiser"),
        (lambda content: content["optimizer"]["param_groups"][0]["params"].pop(), "other parameters or groups"),
        (lambda content: content["optimizer"]["state"][0].pop("exp_avg"), "its optimiser is another"),
        (lambda content: content["optimizer"]["state"][3]["exp_avg_sq"].fill_(math.inf), "that are not finite"),
    ],
)
def test_what_could_not_be_taken_is_said(
    make_config: Make,
    theirs: tuple[Path, nn.Module, torch.optim.Optimizer],
    change: Callable[[Any], object],
    words: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    content = torch.load(theirs[0], weights_only=True)
    change(content)
    torch.save(content, theirs[0])
    running = continued(make_config(resume=str(theirs[0]), epochs=4, ema_decay=0.99))
    assert words in caplog.text
    assert "the average of the weights begins with these weights" in caplog.text
    assert not running.optimizer.state
    expected = dict(theirs[1].named_parameters())
    assert all(torch.equal(value, expected[name]) for name, value in running.plan.bundle.model.named_parameters())


def test_weights_alone_and_other_models_are_refused(
    make_config: Make, theirs: tuple[Path, nn.Module, torch.optim.Optimizer], tmp_path: Path
) -> None:
    path, trained, optimizer = theirs
    torch.save(trained.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ConfigError, match="weights alone are for --pretrained"):
        continued(make_config(resume=str(tmp_path / "weights.pt")))
    with torch.no_grad():
        trained.text_projection[1, 2] = math.nan
    save(path, trained, optimizer)
    with pytest.raises(CheckpointMismatch, match="the weights text_projection are not finite"):
        continued(make_config(resume=str(path)))
    del trained.text_projection
    save(path, trained, optimizer)
    with pytest.raises(CheckpointMismatch, match="text_projection"):
        continued(make_config(resume=str(path)))
