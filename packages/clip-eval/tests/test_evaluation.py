"""From a model and a folder to a record, and what the record says."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from clip_core.errors import DataError
from clip_eval import evaluate, open_dataset, read_records
from clip_eval.evaluation import Options
from clip_eval.records import model_facts, shards_sha256


def strict(text: str) -> dict:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def results(digits, tmp_path_factory) -> Path:
    """Records of an untrained model on both digit sets."""
    import clip_core

    torch.manual_seed(11)
    bundle = clip_core.create("tiny")
    folder = tmp_path_factory.mktemp("results")
    for name in ("digits", "digit_scenes"):
        evaluate(bundle, open_dataset(digits / name), model_name="untrained").save(folder)
    return folder


def test_record_on_disk(results: Path) -> None:
    records = {data["task"]: (path, data) for path, data in read_records(results)}
    assert set(records) == {"zero_shot_classification", "retrieval"}
    for path, _ in records.values():
        data = strict(path.read_text(encoding="utf-8"))
        assert data["schema"] == 1
        for metric in data["metrics"].values():
            assert metric["low"] <= metric["value"] <= metric["high"]
            assert metric["pessimistic"] <= metric["value"] <= metric["optimistic"]
            assert metric["n"] % data["dataset"]["evaluated"] == 0  # the mean of both directions has twice as many
        assert data["model"]["name"] == "untrained"
        assert data["dataset"]["about"]["notes"]
        assert data["precision"]["model"] == "float32"
        assert {"python", "torch", "clip-core", "clip-eval"} <= set(data["versions"])
        assert data["seconds"]["total"] > 0
        lines = path.with_suffix(".samples.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(lines) == data["dataset"]["evaluated"]
        assert all(len(strict(line)["answers"]) == 3 for line in lines)
        thumbnails = list(path.with_suffix(".images").glob("*.png"))
        assert 12 <= len(thumbnails) <= 60
        with Image.open(thumbnails[0]) as image:
            assert image.size == (32, 32)


def test_the_record_says_with_what_the_features_were_made(bundle, make_classification) -> None:
    dataset = open_dataset(make_classification())
    plain = evaluate(bundle, dataset, batch_size=3)
    (made,) = plain.to_json()["made_with"]
    assert made["batch_size"] == 3
    assert made["versions"]["torch"] == plain.facts["versions"]["torch"]
    alike = evaluate(bundle, dataset, batch_size=3, deterministic=True)
    assert alike.facts["precision"]["deterministic"] is True
    assert alike.name != plain.name


def test_the_record_says_what_a_probe_learnt_from(bundle, make_classification, png, caplog) -> None:
    labels = [str(number % 3) for number in range(24)]
    folder = make_classification(labels, images=[*(png(number) for number in range(23)), b"no picture"])
    (folder / "test").rename(folder / "train")
    make_classification()
    test, train = open_dataset(folder), open_dataset(folder, "train")
    facts = evaluate(bundle, test, task="linear_probe", train=train).facts["dataset"]
    assert facts["excluded"]["count"] == 0
    (learnt,) = facts["learnt_from"].values()
    assert (learnt["split"], learnt["samples"], learnt["evaluated"], learnt["excluded"]["count"]) == (
        "train",
        24,
        23,
        1,
    )
    assert "s0000023" in learnt["excluded"]["first"][0]["name"]
    assert learnt["shards_sha256"] == shards_sha256(train) != facts["shards_sha256"]
    assert "animals, train: 1 of 24 images left out" in caplog.text
    assert "learnt_from" not in evaluate(bundle, test, train=train).facts["dataset"]


def test_a_second_save_replaces_the_first(bundle, make_classification, tmp_path: Path) -> None:
    record = evaluate(bundle, open_dataset(make_classification()))
    first, second = record.save(tmp_path / "out"), record.save(tmp_path / "out")
    assert first == second
    assert len(read_records(tmp_path / "out")) == 1


def test_whatever_changes_the_result_gives_another_record(bundle, make_classification, tmp_path: Path) -> None:
    folder, out = make_classification(), tmp_path / "out"
    shutil.copytree(folder / "test", folder / "train" / "deep")
    test, train = open_dataset(folder), open_dataset(folder, "train/deep")
    config = dataclasses.replace(bundle.config.preprocess, interpolation="bilinear")
    other = dataclasses.replace(bundle, config=dataclasses.replace(bundle.config, preprocess=config))
    paths = [
        evaluate(bundle, test).save(out),
        evaluate(bundle, train).save(out),
        evaluate(bundle, test, options=Options(templates=["{c}"])).save(out),
        evaluate(other, test).save(out),
    ]
    assert len(set(paths)) == len(read_records(out)) == 4
    bundle.model.bfloat16()
    assert evaluate(bundle, test).save(out) not in paths
    assert {path.name.split(".")[1] for path in out.glob("*.json")} == {"test", "train-deep"}


def test_a_kill_leaves_no_old_record_with_new_companions(
    bundle, make_classification, tmp_path: Path, monkeypatch
) -> None:
    record = evaluate(bundle, open_dataset(make_classification()))
    path = record.save(tmp_path / "out")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("clip_eval.records.record.save_gallery", stop)
    with pytest.raises(KeyboardInterrupt):
        record.save(tmp_path / "out")
    assert not path.exists()
    monkeypatch.undo()
    assert record.save(tmp_path / "out") == path
    assert len(read_records(tmp_path / "out")) == 1


def test_a_record_that_cannot_be_written(bundle, make_classification, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written"):
        evaluate(bundle, open_dataset(make_classification())).save(tmp_path / "file")


def test_the_weights_hash_knows_the_weights_and_nothing_else(bundle) -> None:
    facts = model_facts(bundle)
    assert facts == model_facts(bundle)
    with torch.no_grad():
        next(bundle.model.parameters()).view(-1)[0] += 1e-3
    changed = model_facts(bundle)
    assert changed["weights_sha256"] != facts["weights_sha256"]
    assert changed["config_sha256"] == facts["config_sha256"]
    bundle.model.half()
    assert model_facts(bundle)["weights_sha256"] != changed["weights_sha256"]


@pytest.mark.parametrize("text", ["{", "[]", '{"notes": "one"}'])
def test_a_damaged_about_file(bundle, make_classification, text: str) -> None:
    folder = make_classification()
    (folder / "about.json").write_text(text)
    with pytest.raises(DataError, match=r"about\.json"):
        evaluate(bundle, open_dataset(folder))


def test_folders_without_or_with_damaged_records(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no evaluation record"):
        read_records(tmp_path)
    (tmp_path / "a.json").write_text('{"schema": 1')
    with pytest.raises(DataError, match=r"a\.json: not a readable record"):
        read_records(tmp_path)
    (tmp_path / "a.json").write_text('{"name": "package"}')
    with pytest.raises(DataError, match="not an evaluation record of schema 1"):
        read_records(tmp_path)
