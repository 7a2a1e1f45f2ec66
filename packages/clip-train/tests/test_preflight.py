from __future__ import annotations

import dataclasses
import json
import os
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import clip_core
from clip_core.errors import ConfigError, DataError, StorageError
from clip_train import TrainConfig, preflight, train
from clip_train.cli import main
from clip_train.plan import prepare
from clip_train.world import World

Make = Callable[..., TrainConfig]


def test_a_good_run_is_found_good_and_nothing_is_left_behind(make_config: Make, tmp_path: Path) -> None:
    config = make_config(name="mine")
    found = preflight.fly(config)
    assert [line.split(":")[0] for line in found[:2]] == ["data", "model"]
    assert not (tmp_path / "logs").exists()


def test_trying_changes_no_number_of_the_run(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def losses(folder: Path) -> list[float]:
        return [
            json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        ]

    tried = losses(train(make_config(name="tried")).folder)
    monkeypatch.setattr("clip_train.run.preflight", lambda plan: [])
    assert losses(train(make_config(name="untried")).folder) == tried


def test_data_of_which_nothing_can_be_used_is_found(make_config: Make, make: Any, tmp_path: Path) -> None:
    good = [make.pair(n) for n in range(4)]
    bad = [{**make.pair(n), "png": b"torn"} for n in range(4, 400)]
    plan = prepare(make_config(train_data=str(make.shard(tmp_path / "x.tar", bad + good))))
    with pytest.raises(DataError, match=r"None of 8 samples .* can be used; the first is .*x\.tar:s0000"):
        preflight.preflight(plan)


def test_some_bad_samples_are_not_in_the_way(make_config: Make, make: Any, tmp_path: Path) -> None:
    samples = [make.pair(n) | ({"png": b"torn"} if n % 2 else {}) for n in range(16)]
    preflight.preflight(prepare(make_config(train_data=str(make.shard(tmp_path / "x.tar", samples)))))


def test_weights_that_give_no_numbers_are_found(make_config: Make) -> None:
    plan = prepare(make_config())
    with torch.no_grad():
        plan.bundle.model.visual.proj.fill_(float("nan"))
    with pytest.raises(ConfigError, match="features of images that are not finite"):
        preflight.preflight(plan)


def test_images_that_do_not_fit_the_model_are_found(make_config: Make) -> None:
    plan = prepare(make_config())
    decoder = plan.decoder
    honest = decoder.pixels.draw
    decoder.pixels.draw = lambda image, seed: honest(image, seed)[:, :16]  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="cannot take images .*--force-image-size"):
        preflight.preflight(plan)


@pytest.mark.parametrize("name", ["configuration", "data", "weights", "code", "torch"])
def test_processes_that_differ_are_told_in_what_and_what_to_do(make_config: Make, name: str) -> None:
    facts = preflight._facts(prepare(make_config()))
    assert set(preflight._CURES) | {"python", "torch", "numpy"} <= set(facts)

    class Several(World):
        def gather(self, value: Any) -> list[Any]:
            return [value, value, {**value, name: "other"}]

    with pytest.raises(ConfigError, match=rf"The {name} differs: process 0 has .*, process\(es\) 2 other\. \w+ .*\."):
        preflight.require_agreement(Several(size=3), facts)


def test_the_checksum_sees_every_weight() -> None:
    state = clip_core.create_model("tiny").state_dict()
    before = preflight.checksum(state)
    assert preflight.checksum({name: value.clone() for name, value in state.items()}) == before
    for name, value in state.items():
        changed = value.clone()
        changed.view(-1)[value.numel() // 2] += 1
        assert preflight.checksum({**state, name: changed}) != before, name


def test_a_disk_without_room_for_checkpoints_is_found(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = prepare(make_config())
    weights = sum(value.nbytes for value in plan.bundle.model.state_dict().values())
    # Three checkpoints of weights and two moments each, and the bundle.
    for free, enough in ((10.1 * weights, True), (9.5 * weights, False)):
        monkeypatch.setattr(preflight.shutil, "disk_usage", lambda place, free=free: types.SimpleNamespace(free=free))
        if enough:
            preflight.preflight(plan)
        else:
            with pytest.raises(StorageError, match="has room for .* MB; a checkpoint has 64 MB"):
                preflight.preflight(plan)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="there is no /dev/shm")
def test_too_little_shared_memory_is_found(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = prepare(make_config(workers=2, batch_size=16))
    image = plan.decoder.batch([(0, 0)]).images.nbytes
    needed = image * 16 * 2 * 5
    for free in (needed, needed - 1):
        room = {"/dev/shm": free}
        monkeypatch.setattr(
            preflight.shutil,
            "disk_usage",
            lambda place, room=room: types.SimpleNamespace(free=room.get(str(place), 10**12)),
        )
        if free == needed:
            preflight.preflight(plan)
        else:
            with pytest.raises(ConfigError, match=r"/dev/shm has room .*docker run --shm-size"):
                preflight.preflight(plan)
    preflight.preflight(dataclasses.replace(plan, config=plan.config.replace(workers=0)))


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no such rights here")
def test_a_folder_that_cannot_be_written_is_found(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = prepare(make_config())

    def refuse(**more: Any) -> Any:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(preflight.tempfile, "TemporaryFile", refuse)
    with pytest.raises(StorageError, match="cannot be written: Read-only file system"):
        preflight.preflight(plan)


def test_the_command_says_what_was_found(shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        f"preflight --train-data {shards} --model tiny --batch-size 8 --workers 0 --device cpu --logs {tmp_path}/logs"
    )
    assert main(words.split()) == 0
    assert "data: 8 samples read" in capsys.readouterr().out
    assert not (tmp_path / "logs").exists()
