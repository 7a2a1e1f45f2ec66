from __future__ import annotations

import json
import math
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import clip_core
from clip_core.errors import ConfigError, DataError
from clip_train import TrainConfig, TrainingDiverged, run, train, trainer
from clip_train.data.decode import Decoder
from clip_train.loss import ContrastiveLoss

Make = Callable[..., TrainConfig]


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_run_leaves_a_folder_that_says_all_and_a_bundle_that_loads(make_config: Make, tmp_path: Path) -> None:
    result = train(make_config(name="mine", epochs=2))
    folder = tmp_path / "logs" / "mine"
    assert (result.folder, result.bundle) == (folder, folder / "bundle")
    assert sorted(p.name for p in folder.iterdir()) == [
        "bundle",
        "checkpoints",
        "config.json",
        "metrics.jsonl",
        "out.log",
        "report.html",
        "summary.json",
    ]
    assert TrainConfig.from_json(json.loads((folder / "config.json").read_text(encoding="utf-8"))) == result.config
    lines = records(folder)
    assert [line["step"] for line in lines] == list(range(1, 11))
    assert (result.steps, result.samples_seen, result.loss) == (10, 80, lines[-1]["loss"])
    assert "step 10 of 10" in (folder / "out.log").read_text(encoding="utf-8")
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert (summary["finished"], summary["steps"], summary["samples"]) == (True, 10, 40)
    assert summary["config_sha256"] == result.config.sha256
    bundle = clip_core.load(result.bundle)
    torch.manual_seed(0)
    start = clip_core.create_model("tiny")
    assert not torch.equal(bundle.model.visual.proj, start.visual.proj)


def test_the_saved_weights_are_the_trained_ones(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Any] = []
    honest = run.prepare
    monkeypatch.setattr(run, "prepare", lambda *given: plans.append(honest(*given)) or plans[-1])
    result = train(make_config())
    trained = plans[0].bundle.model.state_dict()
    saved = clip_core.load(result.bundle).model.state_dict()
    assert all(torch.equal(saved[name], value) for name, value in trained.items())


def test_a_run_continues_from_a_bundle(make_config: Make) -> None:
    first = train(make_config(lr=1e-3))
    second = train(make_config(pretrained=str(first.bundle), lr=1e-9, wd=0.0, warmup=0))
    before = clip_core.load(first.bundle).model.state_dict()
    after = clip_core.load(second.bundle).model.state_dict()
    for name, value in before.items():
        assert (value - after[name]).abs().max() < 1e-6, name


@pytest.mark.failure(
    "corrupt jpeg",
    promise="The slot is kept and filled with another sample; counted per shard, and named with its reason.",
)
@pytest.mark.parametrize("guarded", [True, False])
def test_bad_samples_are_counted_in_the_result_the_log_and_the_summary(
    make_config: Make, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    samples = [make.pair(n) for n in range(16)]
    samples[3]["png"] = b"torn"
    samples[5]["txt"] = b""
    samples[8]["txt"] = b"word " * 50
    path = make.shard(tmp_path / "x.tar", samples)
    if not guarded:
        monkeypatch.setattr(Decoder, "_substitute", lambda self, epoch, position, reason, watch: pytest.fail(reason))
        with pytest.raises(pytest.fail.Exception):
            train(make_config(train_data=str(path), epochs=2))
        return
    result = train(make_config(train_data=str(path), epochs=2))
    assert (result.skipped_samples, result.truncated_captions) == (2, 1)
    log = (result.folder / "out.log").read_text(encoding="utf-8")
    assert log.count("x.tar:s0000003") >= 1
    assert log.count("skipped") == 2
    summary = json.loads((result.folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["skipped_by_shard"] == {str(path): 2}
    assert summary["skipped_slots"] == 4 == sum(line["skipped_samples"] for line in records(result.folder))


def test_a_run_is_never_overwritten(make_config: Make) -> None:
    result = train(make_config(name="mine"))
    before = {p: p.read_bytes() for p in result.folder.rglob("*") if p.is_file()}
    with pytest.raises(ConfigError, match="already holds a run"):
        train(make_config(name="mine"))
    assert {p: p.read_bytes() for p in result.folder.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("wrong", [{"model": "tinny"}, {"pretrained": "/no/such/file.pt"}, {"train_data": "no.tar"}])
def test_bad_input_leaves_nothing_behind(make_config: Make, tmp_path: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(clip_core.ClipError):
        train(make_config(**wrong))
    assert not (tmp_path / "logs").exists()


def test_a_run_that_diverges_leaves_its_metrics_and_no_bundle(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = ContrastiveLoss.__call__
    monkeypatch.setattr(ContrastiveLoss, "__call__", lambda *a: honest(*a) * math.nan)
    with pytest.raises(TrainingDiverged):
        train(make_config(name="mine"))
    folder = tmp_path / "logs" / "mine"
    assert not (folder / "bundle").exists()
    assert all(line["loss"] is None and line["finite"] is False and not line["updated"] for line in records(folder))
    assert len(records(folder)) == 5
    assert json.loads((folder / "summary.json").read_text(encoding="utf-8"))["finished"] is False


def test_finite_weights_that_give_no_numbers_are_never_written(make_config: Make, tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match="features that are not finite"):
        train(make_config(name="mine", lr=1e30, warmup=0, train_num_samples=8))
    folder = tmp_path / "logs" / "mine"
    assert not (folder / "bundle").exists()
    assert json.loads((folder / "summary.json").read_text(encoding="utf-8"))["finished"] is False


def test_a_taken_name_and_a_full_disk_are_found_before_anything_is_read(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "logs" / "mine").mkdir(parents=True)
    (tmp_path / "logs" / "mine" / "config.json").write_text("{}", encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(run, "prepare", lambda *_: pytest.fail("the data was read first"))
        with pytest.raises(clip_core.ConfigError, match="already holds a run"):
            train(make_config(name="mine"))
    monkeypatch.setattr("shutil.disk_usage", lambda _: types.SimpleNamespace(free=10**6))
    with pytest.raises(clip_core.StorageError, match=r"room for 1 MB, and the weights alone need 21 MB"):
        train(make_config(name="other"))
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["mine"]


def test_weights_that_are_not_finite_are_never_written(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poison(scale: torch.nn.Parameter) -> None:
        with torch.no_grad():
            scale.fill_(math.nan)

    monkeypatch.setattr(trainer, "clamp_logit_scale", poison)
    with pytest.raises(TrainingDiverged, match="logit_scale"):
        train(make_config(name="mine", train_num_samples=8))
    assert not (tmp_path / "logs" / "mine" / "bundle").exists()


def test_storage_that_fails_in_the_middle_ends_the_run_aloud(
    make_config: Make, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make.shard(tmp_path / "x.tar", [make.pair(n) for n in range(16)])
    honest = run.fit

    def cut_then_fit(*args: Any) -> None:
        path.write_bytes(path.read_bytes()[:600])
        honest(*args)

    monkeypatch.setattr(run, "fit", cut_then_fit)
    with pytest.raises(DataError, match="short read"):
        train(make_config(train_data=str(path), name="mine"))
    assert "short read" in (tmp_path / "logs" / "mine" / "out.log").read_text(encoding="utf-8")
    assert not (tmp_path / "logs" / "mine" / "bundle").exists()
