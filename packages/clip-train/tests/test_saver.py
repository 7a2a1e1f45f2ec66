"""Saving in one process: when, what, and what happens where it fails.

Rooms: `clip_train.checkpoint.saver`, `clip_train.checkpoint.state`, `clip_train.checkpoint.full`,
`clip_train.checkpoint.sharded` and `clip_train.checkpoint.disk`.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import clip_core
import clip_core.presets
from clip_core.errors import StorageError
from clip_core.presets.parts import model, text_tower
from clip_core.presets.vit import image_tower
from clip_train import TrainConfig, train
from clip_train.checkpoint import disk, export, full, published, verify
from clip_train.checkpoint.saver import SAVE, Saver
from clip_train.checkpoint.state import alone, restore, take
from clip_train.plan import prepare
from clip_train.trainer import Running, fit, start

Make = Callable[..., TrainConfig]
SMALLEST = model(16, image_tower(32, 16, 16, 1, 2, 32), text_tower(8, 2, 1, context_length=32))


@pytest.fixture(autouse=True)
def smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(clip_core.presets._PRESETS, "tiny", SMALLEST)


def steps(root: Path) -> list[int]:
    assert all(verify(entry.path) is None for entry in published(root))
    assert all((path / "manifest.json").exists() for path in root.iterdir())
    return [entry.step for entry in published(root)]


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


class Full:
    """A disk that refuses every `write_tensors`, or those of the given numbers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *numbers: int, error: BaseException | None = None) -> None:
        self.calls, self.numbers = 0, numbers
        self.error = error or OSError(errno.ENOSPC, "No space left on device")
        self.honest = disk.write_tensors
        monkeypatch.setattr(disk, "write_tensors", self.write)

    def write(self, path: Path, tensors: Any) -> None:
        self.calls += 1
        if not self.numbers or self.calls in self.numbers:
            path.write_bytes(b"half")
            raise self.error
        self.honest(path, tensors)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [5, 10, 15]),
        ({"save_frequency": 2}, [10, 15]),
        ({"save_frequency": 0}, [15]),
        ({"save_frequency": 0, "save_most_recent": True}, [10, 15]),
        ({"save_frequency": 2, "save_every_n_steps": 4}, [10, 12, 15]),
        ({"delete_previous_checkpoint": True, "save_every_n_steps": 1}, [14, 15]),
        ({"save_frequency": 0, "save_every_minutes": 1e-9}, [14, 15]),
        ({"save_async": True, "save_every_n_steps": 4}, [5, 10, 12, 15]),
    ],
)
def test_when_a_run_is_saved_and_what_stays(make_config: Make, fields: dict[str, Any], expected: list[int]) -> None:
    result = train(make_config(epochs=3, **fields))
    assert steps(result.folder / "checkpoints") == expected


def test_a_checkpoint_is_a_bundle(make_config: Make, tmp_path: Path) -> None:
    result = train(make_config())
    (entry,) = published(result.folder / "checkpoints")
    weights = clip_core.load(result.bundle).model.state_dict()
    found = clip_core.load(entry.path).model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in weights.items())
    again = train(make_config(pretrained=str(entry.path), lr=1e-9, wd=0.0, warmup=0))
    assert again.loss == pytest.approx(result.loss, abs=0.2)
    in_shards = train(make_config(fsdp_checkpoint="sharded"))
    (entry,) = published(in_shards.folder / "checkpoints")
    for number, folder in enumerate((entry.path, published(result.folder / "checkpoints")[0].path)):
        exported = export(folder, tmp_path / f"bundle{number}")
        assert sorted(path.name for path in exported.iterdir()) == ["clip_config.json", "model.safetensors"]
        found = clip_core.load(exported).model.state_dict()
        assert all(torch.equal(found[name], value) for name, value in weights.items())


def test_the_state_says_what_it_is_of(make_config: Make) -> None:
    result = train(make_config(name="mine"))
    (entry,) = published(result.folder / "checkpoints")
    header = full.read_header(entry.path)
    assert (header["step"], header["global_batch"], header["seed"], header["processes"]) == (5, 8, 0, 1)
    assert header["config_sha256"] == result.config.sha256
    assert TrainConfig.from_json(header["config"]) == result.config
    assert header["versions"]["torch"] == torch.__version__
    assert not list(entry.path.glob("*.pt"))


def test_a_full_disk_is_a_warning_and_the_save_is_tried_again(
    make_config: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = train(make_config(epochs=3))
    Full(monkeypatch, 3, 6, 7)  # the second save's first try, and both of the third's
    with caplog.at_level(logging.WARNING):
        result = train(make_config(epochs=3))
    assert [record["loss"] for record in records(result.folder)] == [r["loss"] for r in records(whole.folder)]
    said = [record.getMessage() for record in caplog.records if "saved" in record.getMessage()]
    assert [("trying once more" in text, "training goes on" in text) for text in said] == [
        (True, False),
        (True, False),
        (False, True),
    ]
    assert "No space left on device" in said[0]
    assert steps(result.folder / "checkpoints") == [5, 10]


@pytest.mark.parametrize("fields", [{}, {"save_async": True}])
def test_a_disk_that_stays_full_ends_the_run_after_some_saves(
    make_config: Make, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    Full(monkeypatch, *range(5, 100))  # two saves have gone through
    with pytest.raises(StorageError, match="3 saves in a row have failed.*No space left"):
        train(make_config(epochs=3, name="mine", save_every_n_steps=1, save_frequency=0, **fields))
    folder = Path(make_config().run.logs) / "mine"
    assert steps(folder / "checkpoints") == [1, 2]
    assert 5 <= len(records(folder)) <= 8


@pytest.mark.parametrize("fields", [{}, {"save_async": True}])
def test_shards_that_cannot_be_written_are_the_same_failure(
    make_config: Make, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    from torch.distributed.checkpoint.filesystem import FileSystemWriter

    def refuse(self: Any, *args: Any) -> None:
        (self.path / "__0_0.distcp").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FileSystemWriter, "write_data", refuse)
    with pytest.raises(StorageError, match="3 saves in a row have failed.*No space left"):
        train(make_config(epochs=3, name="mine", save_every_n_steps=1, fsdp_checkpoint="sharded", **fields))
    assert list((Path(make_config().run.logs) / "mine" / "checkpoints").iterdir()) == []


def test_an_error_in_the_background_is_not_lost(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    Full(monkeypatch, 1, error=ZeroDivisionError("a defect"))
    with pytest.raises(ZeroDivisionError, match="a defect"):
        train(make_config(save_async=True))


def running_of(config: TrainConfig) -> Running:
    return start(prepare(config))


def test_what_is_not_finite_is_never_saved(make_config: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    running = running_of(make_config())
    fit(running)
    saver = Saver(tmp_path / "checkpoints", running.plan)
    with torch.no_grad():
        running.plan.bundle.model.visual.proj[0, 0] = math.nan
    saver.save(running)
    assert "step 5 is not saved: model/visual.proj is not finite" in caplog.text
    with torch.no_grad():
        running.plan.bundle.model.visual.proj[0, 0] = 0.0
    moment = next(iter(running.optimizer.state.values()))["exp_avg"]
    moment.view(-1)[0] = math.inf
    saver.save(running)
    assert "is not saved: optimizer/state.0.exp_avg is not finite" in caplog.text
    moment.view(-1)[0] = 0.0
    # What JSON and tensors cannot hold is looked through, too, also where a thread would write it.
    odd = {"size": torch.Size([2]), "deep": [{"mean": torch.tensor([1.0, math.nan])}]}
    running.parts["odd"] = SimpleNamespace(state_dict=lambda: odd)  # type: ignore[assignment]
    for background in (False, True):
        made = Saver(
            tmp_path / "checkpoints", dataclasses.replace(running.plan, config=make_config(save_async=background))
        )
        with made:
            made.save(running)
    assert caplog.text.count("is not saved: beside.odd.deep.0.mean is not finite") == 2
    assert not (tmp_path / "checkpoints").exists()
    del running.parts["odd"]
    saver.save(running)
    assert steps(tmp_path / "checkpoints") == [5]


def test_a_step_counts_as_saved_once_it_was_written_and_until_training_goes_back(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = running_of(make_config(save_frequency=0))
    fit(running)
    saver = Saver(tmp_path, running.plan)
    Full(monkeypatch, 1, 2)  # both tries of the first save
    saver.save(running)
    assert steps(tmp_path) == []
    saver.save(running)
    saver.save(running)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]
    running.state.steps = 3
    saver.after_step(running, torch.tensor(True))
    running.state.steps = 5
    saver.save(running)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000005", "step-00000005.2"]


def test_a_vote_and_a_stop_save(make_config: Make, tmp_path: Path) -> None:
    class Asking:
        votes = (SAVE,)

        def after_step(self, running: Running, admitted: torch.Tensor) -> None:
            if running.state.steps == 1:
                running.votes[SAVE] = True
            if running.state.steps == 4:
                running.stop = True

    running = running_of(make_config(save_frequency=0))
    fit(running, [Asking(), Saver(tmp_path, running.plan)])
    assert steps(tmp_path) == [2, 4]


def test_whatever_has_a_state_dict_can_be_kept(make_config: Make, tmp_path: Path) -> None:
    class Part:
        def __init__(self, **held: Any) -> None:
            self.held = held

        def state_dict(self) -> dict[str, Any]:
            return self.held

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.held = state_dict

    running = running_of(make_config())
    fit(running)
    shared = torch.arange(6.0)
    parts = {
        "plain": Part(mean={"a.b": shared, "c": shared[2:4], 3: (1, math.inf)}),
        "odd": Part(size=torch.Size([2, 3])),
    }
    running.parts = dict(parts)
    Saver(tmp_path, running.plan).save(running)
    (entry,) = published(tmp_path)
    assert (entry.path / "odd.pt").exists()
    other = running_of(make_config())
    other.parts = {"plain": Part(mean={}), "odd": Part()}
    restore(other, full.read(entry.path), "x")
    assert other.parts["odd"].state_dict() == {"size": torch.Size([2, 3])}
    found = other.parts["plain"].state_dict()["mean"]
    assert torch.equal(found["a.b"], shared)
    assert torch.equal(found["c"], shared[2:4])
    assert found[3] == (1, math.inf)
    # Older checkpoints lack this one, and the run can do without what it remembers.
    other.parts["bad_data"] = Part(lost=3)
    restore(other, full.read(entry.path), "x")
    assert other.parts["bad_data"].state_dict() == {"lost": 3}
    other.parts["more"] = Part()
    with pytest.raises(clip_core.CheckpointMismatch, match="has no more, which this run needs"):
        restore(other, full.read(entry.path), "x")


def test_what_a_thread_writes_does_not_change_with_training() -> None:
    held = {"size": torch.Size([2]), "deep": [(torch.zeros(2, requires_grad=True), {1, 2})]}
    kept = alone(held)
    with torch.no_grad():
        held["deep"][0][0].fill_(1)
    held["deep"][0][1].clear()
    assert kept["size"] == torch.Size([2])
    assert kept["deep"][0][0].tolist() == [0, 0]
    assert kept["deep"][0][1] == {1, 2}


def test_a_state_of_another_model_or_optimiser_is_refused(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    running = running_of(make_config())
    held = take(running)
    running.optimizer.param_groups[0]["params"].reverse()
    with pytest.raises(clip_core.CheckpointMismatch, match="another set or order of parameters"):
        restore(running, held, "x")
    wider = model(16, image_tower(32, 16, 32, 1, 2, 32), text_tower(8, 2, 1, context_length=32))
    monkeypatch.setitem(clip_core.presets._PRESETS, "tiny", wider)
    with pytest.raises(clip_core.CheckpointMismatch, match=r"x is of another model: .* has shape"):
        restore(running_of(make_config()), held, "x")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"opt": "nadamw"}, "was trained with AdamW, not NAdam, .* same --opt"),
        ({"ema_decay": 0.9}, "has no average, .* because of --ema-decay"),
        ({"precision": "amp"}, "has no scaler, .* because of --precision amp"),
    ],
)
def test_flags_that_need_what_the_checkpoint_has_not_are_refused_by_name(
    make_config: Make, flags: dict[str, Any], words: str
) -> None:
    held = take(running_of(make_config()))
    other = running_of(make_config(**flags))
    with pytest.raises(clip_core.CheckpointMismatch, match=words):
        restore(other, held, "x")


def test_what_the_flags_say_about_the_optimiser_holds_when_a_run_goes_on(make_config: Make) -> None:
    running = running_of(make_config())
    fit(running)
    held = take(running)
    other = running_of(make_config(wd=0.05, beta1=0.8))
    restore(other, held, SimpleNamespace())
    assert [group["weight_decay"] for group in other.optimizer.param_groups] == [0.0, 0.05]
    assert {group["betas"][0] for group in other.optimizer.param_groups} == {0.8}
    theirs, ours = running.optimizer.state_dict()["state"], other.optimizer.state_dict()["state"]
    assert all(torch.equal(ours[n][key], value) for n, values in theirs.items() for key, value in values.items())
