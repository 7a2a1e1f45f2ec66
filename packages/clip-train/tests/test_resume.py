"""Which checkpoint a run goes on from, and what it refuses to go on from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import clip_core.presets
from clip_core.errors import CheckpointMismatch, ConfigError
from clip_core.presets.parts import model, text_tower
from clip_core.presets.vit import image_tower
from clip_train import TrainConfig, train
from clip_train.checkpoint import published
from clip_train.checkpoint.resume import Origin, find_origin
from clip_train.plan import prepare
from clip_train.world import World

Make = Callable[..., TrainConfig]
SMALLEST = model(16, image_tower(32, 16, 16, 1, 2, 32), text_tower(8, 2, 1, context_length=32))


@pytest.fixture(autouse=True)
def smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(clip_core.presets._PRESETS, "tiny", SMALLEST)


def losses(folder: Path) -> list[tuple[int, float]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [(body["step"], body["loss"]) for body in map(json.loads, lines)]


def origin_of(whole: int, **header: Any) -> Origin:
    return Origin(Path("checkpoints/step-00000005"), {"step": 5, "global_batch": whole, "seed": 0, **header})


@pytest.mark.parametrize(
    ("whole", "processes", "accumulated", "share"),
    [(8, 1, 1, 8), (8, 2, 1, 4), (8, 4, 1, 2), (8, 2, 2, 2), (96, 6, 4, 4)],
)
def test_the_batch_of_a_process_follows_from_the_global_batch(
    make_config: Make, whole: int, processes: int, accumulated: int, share: int, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config(batch_size=64, accum_freq=accumulated)
    with caplog.at_level("INFO"):
        found = origin_of(whole).adopt(config, World(size=processes))
    assert found == config.replace(batch_size=share)
    assert f"--batch-size is {share} in place of 64: {whole} samples per step" in caplog.text


@pytest.mark.parametrize(
    ("whole", "processes", "accumulated", "words"),
    [
        (8, 3, 1, "8 samples per step, which 3 processes .* cannot .* can: 2 or 4"),
        (8, 8, 1, "can: 4"),
        (90, 4, 1, "can: 3 or 5"),
        (96, 5, 2, "can: 4 or 6"),
        (10, 2, 3, "Use --accum-freq 1"),
    ],
)
def test_numbers_of_processes_that_cannot_divide_it_are_refused_with_the_nearest_that_can(
    make_config: Make, whole: int, processes: int, accumulated: int, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        origin_of(whole).adopt(make_config(accum_freq=accumulated), World(size=processes))


def test_another_seed_is_refused(make_config: Make) -> None:
    with pytest.raises(ConfigError, match="trained with --seed 0, not 1"):
        origin_of(8).adopt(make_config(seed=1), World())


def test_latest_needs_a_name_and_begins_where_there_is_nothing(make_config: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give its --name"):
        find_origin(make_config(resume="latest"))
    assert find_origin(make_config(resume="latest", name="mine")) is None
    result = train(make_config(resume="latest", name="mine"))
    assert [step for step, _ in losses(result.folder)] == [1, 2, 3, 4, 5]


def test_a_run_goes_on_longer_in_its_folder(make_config: Make) -> None:
    whole = train(make_config(name="whole", epochs=2, lr_scheduler="const"))
    short = train(make_config(name="mine", lr_scheduler="const"))
    assert losses(short.folder) == losses(whole.folder)[:5]
    result = train(make_config(name="mine", epochs=2, lr_scheduler="const", resume="latest"))
    assert losses(result.folder) == losses(whole.folder)
    assert (result.steps, result.bundle) == (10, short.bundle)
    assert (result.bundle / "model.safetensors").read_bytes() == (whole.bundle / "model.safetensors").read_bytes()
    log = (result.folder / "out.log").read_text(encoding="utf-8")
    assert "epochs is 2, was 1" in log
    assert "going on after step 5 of 10" in log
    written = json.loads((result.folder / "config.json").read_text(encoding="utf-8"))
    assert TrainConfig.from_json(written) == result.config
    again = train(make_config(name="mine", epochs=2, lr_scheduler="const", resume="latest"))
    assert (again.steps, again.loss) == (10, result.loss)


def test_the_bar_goes_on_where_the_run_does(make_config: Make, capsys: pytest.CaptureFixture[str]) -> None:
    for epochs in (1, 2):
        train(make_config(name="mine", epochs=epochs, resume="latest"), progress=True)
    assert "80.0/80.0" in capsys.readouterr().err


def test_an_older_checkpoint_can_be_named_and_newer_ones_are_set_aside(make_config: Make) -> None:
    whole = train(make_config(name="whole", epochs=3))
    checkpoints = whole.folder / "checkpoints"
    other = train(make_config(name="other", epochs=3, resume=str(checkpoints / "step-00000005")))
    assert losses(other.folder) == losses(whole.folder)
    assert [entry.step for entry in published(other.folder / "checkpoints")] == [10, 15]
    assert [entry.step for entry in published(checkpoints)] == [5, 10, 15]
    expected = losses(whole.folder)
    train(make_config(name="whole", epochs=3, resume=str(checkpoints / "step-00000005")))
    assert losses(whole.folder) == expected
    assert sorted(path.name for path in checkpoints.iterdir()) == [
        "aside-step-00000010",
        "aside-step-00000015",
        "step-00000005",
        "step-00000010",
        "step-00000015",
    ]
    for path in (whole.folder, checkpoints):
        found = find_origin(make_config(resume=str(path)))
        assert isinstance(found, Origin)
        assert found.step == 15


def test_a_damaged_checkpoint_is_skipped_aloud(make_config: Make) -> None:
    whole = train(make_config(name="mine", epochs=3))
    expected, weights = losses(whole.folder), (whole.bundle / "model.safetensors").read_bytes()
    checkpoints = whole.folder / "checkpoints"
    newest = checkpoints / "step-00000015"
    data = bytearray((newest / "optimizer.safetensors").read_bytes())
    data[-1] ^= 1
    (newest / "optimizer.safetensors").write_bytes(data)
    with pytest.raises(CheckpointMismatch, match=r"step-00000015 is damaged: optimizer.safetensors is not what was"):
        find_origin(make_config(resume=str(newest)))
    result = train(make_config(name="mine", epochs=3, resume="latest"))
    assert losses(result.folder) == expected
    assert (result.bundle / "model.safetensors").read_bytes() == weights
    log = (result.folder / "out.log").read_text(encoding="utf-8")
    assert "step-00000015 is damaged and skipped: optimizer.safetensors is not what was written" in log
    assert "aside-step-00000015" in log
    for entry in published(checkpoints):
        (entry.path / "state.json").unlink()
    with pytest.raises(CheckpointMismatch, match="All 3 checkpoints in .* are damaged"):
        train(make_config(name="mine", epochs=3, resume="latest"))


def test_what_is_no_checkpoint_is_said(make_config: Make, tmp_path: Path, shards: str, make: Any) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        find_origin(make_config(resume=str(tmp_path / "gone")))
    with pytest.raises(ConfigError, match="is no checkpoint, and no folder of a run"):
        find_origin(make_config(resume=str(tmp_path)))
    result = train(make_config(name="mine"))
    other = make.shard(tmp_path / "other.tar", [make.pair(n) for n in range(40)])
    before = (result.folder / "metrics.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="trained on other data"):
        train(make_config(name="mine", train_data=str(other), epochs=2, resume="latest"))
    with pytest.raises(ConfigError, match="already holds a run"):
        train(make_config(name="mine"))
    assert (result.folder / "metrics.jsonl").read_bytes() == before


def test_another_order_of_the_same_data_is_refused(make_config: Make) -> None:
    result = train(make_config(name="mine"))
    with pytest.raises(ConfigError, match="--dataset-resampled was off"):
        train(make_config(name="mine", epochs=2, dataset_resampled=True, resume="latest"))
    origin = find_origin(make_config(resume=str(result.folder)))
    assert isinstance(origin, Origin)
    plan = prepare(make_config())
    origin.check(plan)
    header = {key: value for key, value in origin.header.items() if key != "order"}
    dataclasses.replace(origin, header=header).check(plan)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"streams": 4}, "--order-streams made it 2, and makes it 4"),
        ({"window": 9}, "--shuffle-window made it 8, and makes it 9"),
        ({"factors": [1.0, 2.5]}, "--train-data-upsampling-factors was 1::2, and is 1::2.5"),
        ({"kind": "drawn"}, "--dataset-resampled was off"),
    ],
)
def test_the_flag_that_changed_the_order_is_named(changed: dict[str, Any], words: str) -> None:
    before = {"kind": "permuted", "count": 9, "seed": 0, "factors": [1.0, 2.0], "streams": 2, "window": 8}
    plan: Any = SimpleNamespace(
        source=SimpleNamespace(fingerprint="x"),
        decoder=SimpleNamespace(order=SimpleNamespace(fingerprint=before | changed)),
    )
    with pytest.raises(ConfigError, match=words):
        origin_of(8, data="x", order=before).check(plan)


def test_an_origin_knows_its_run(tmp_path: Path) -> None:
    origin = origin_of(8)
    assert dataclasses.replace(origin, folder=tmp_path / "run" / "checkpoints" / "x").run_folder == tmp_path / "run"
    assert dataclasses.replace(origin, folder=tmp_path / "x").run_folder is None
