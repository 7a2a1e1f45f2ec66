"""Records on disk: strict, whole or absent, told apart by whatever makes another result, and read back as written."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clip_core.errors import DataError
from clip_eval import open_dataset
from clip_eval.features import Excluded, ImageFeatures
from clip_eval.metrics import Metric
from clip_eval.records import Record, dataset_facts, find_record, load_record, model_facts, record_name, run_facts
from clip_eval.records.companions import read_outcomes, write_outcomes
from clip_eval.records.reading import parse_json
from clip_eval.tasks.result import Answer, Outcomes, SampleResult, TaskResult

MakeRecord = Callable[..., Record]


def test_the_command_is_recorded_without_the_secrets_of_its_addresses(bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [
        "clip-eval",
        "--dataset=https://me:secret@host:8000/sets/a?sig=secret",
        "s3://key:secret@bucket/a,s3://key:secret@bucket/b",
        "hf://datasets/org/name@v1",
        "a photo of a cat?",
    ]
    monkeypatch.setattr(sys, "argv", words)
    assert shlex.split(run_facts(bundle)["command"]) == [
        "clip-eval",
        "--dataset=https://host:8000/sets/a",
        "s3://bucket/a,s3://bucket/b",
        "hf://datasets/org/name@v1",
        "a photo of a cat?",
    ]


@pytest.fixture
def make_record(bundle, make_classification) -> MakeRecord:
    """A record of four images that no model saw; keyword arguments replace parts of the result or the facts."""
    dataset = open_dataset(make_classification())
    images = ImageFeatures(
        features=torch.eye(4), kept=torch.arange(4), excluded=(), seconds_decode=0.0, seconds_encode=0.0
    )
    base = {"model": {"name": "tiny", **model_facts(bundle)}, "dataset": dataset_facts(dataset, images)}
    base |= run_facts(bundle, command="clip-eval run animals")

    def make(facts: dict[str, Any] | None = None, **changes: Any) -> Record:
        values = torch.tensor([1.0, 0.0, 0.5, 1.0])
        result = TaskResult(
            task="zero_shot_classification",
            metrics={"acc1": Metric(value=0.625, n=4, low=0.2, high=0.9, interval="Wilson")},
            ties={"acc1": 0.25},
            details={
                "templates": ["{c}"],
                "classes": [{"name": name} for name in ("cat", "dog", "owl")],
                "confusion": [[1, 0, 0], [0, 2, 0], [0, 0, 1]],
            },
            samples=[SampleResult(0, "s0", ("cat",), True, (Answer("cat", 0.5, True),))],
            outcomes={
                "acc1": Outcomes(values, torch.arange(4)),
                "acc5": Outcomes(torch.ones(4), torch.arange(4)),
            },
            artefacts={"probe": {"weight": torch.eye(3)[:, :2]}},
            seconds_texts=0.0,
            seconds_metrics=0.0,
        )
        return Record(
            result=dataclasses.replace(result, **changes), dataset=dataset, excluded=(), facts={**base, **(facts or {})}
        )

    return make


def test_a_record_comes_back_as_it_was_written(make_record: MakeRecord, tmp_path: Path) -> None:
    record = make_record({"settings": {"language": "it"}})
    saved = load_record(record.save(tmp_path))
    assert (saved.name, saved.task, saved.dataset, saved.split) == (record.name, record.result.task, "animals", "test")
    assert (saved.model, saved.language) == ("tiny", "it")
    assert saved.metrics == record.result.metrics
    assert saved.samples() == record.result.samples
    outcomes = saved.outcomes()
    assert set(outcomes) == {"acc1", "acc5"}
    for name, entry in outcomes.items():
        assert torch.equal(entry.values, record.result.outcomes[name].values)
        assert torch.equal(entry.clusters, record.result.outcomes[name].clusters)
    assert torch.equal(saved.artefact("probe")["weight"], torch.eye(3)[:, :2])
    with pytest.raises(DataError, match="kept no 'other'"):
        saved.artefact("other")
    path, data = saved
    assert data["details"]["confusion"] == record.result.details["confusion"]
    assert data["command"] == "clip-eval run animals"
    assert data["processes"] == 1
    # A matrix stands row by row, so that one of 1000 classes is not a million lines.
    assert "      [1, 0, 0],\n" in path.read_text()


def test_fingerprints_know_preprocessing_and_tokenizer(bundle) -> None:
    facts = model_facts(bundle)
    config = dataclasses.replace(bundle.config.preprocess, interpolation="bilinear")
    other = model_facts(dataclasses.replace(bundle, config=dataclasses.replace(bundle.config, preprocess=config)))
    assert other["preprocess_sha256"] != facts["preprocess_sha256"]
    assert other["tokenizer_sha256"] == facts["tokenizer_sha256"]
    from clip_core.tokenizer.bpe import ClipTokenizer

    length = bundle.tokenizer.context_length
    shorter = model_facts(dataclasses.replace(bundle, tokenizer=ClipTokenizer(length - 1)))
    assert shorter["tokenizer_sha256"] != facts["tokenizer_sha256"]
    assert model_facts(dataclasses.replace(bundle, tokenizer=ClipTokenizer(length))) == facts


def test_no_two_settings_share_a_file(make_record: MakeRecord, tmp_path: Path) -> None:
    settings: list[dict[str, Any]] = [
        {},
        {"language": "en"},
        {"language": "it"},
        {"language": "it", "templates": ["{c}"]},
        {"fewshot_k": 1, "seed": 0},
        {"fewshot_k": 1, "seed": 1},
        {"fewshot_k": 16, "seed": 0},
    ]
    records = [make_record({"settings": entry}) for entry in settings]
    records += [make_record(task="linear_probe")]
    paths = [record.save(tmp_path) for record in records]
    assert len(set(paths)) == len(paths)
    record = records[1]
    name = record_name(
        dataset="animals",
        split="test",
        task="zero_shot_classification",
        model=record.facts["model"],
        precision=record.facts["precision"],
        settings=settings[1],
    )
    assert name == record.name
    found = find_record(tmp_path, name)
    assert found is not None
    assert found.settings == settings[1]
    assert find_record(tmp_path, name + "0") is None


def test_names_that_look_alike_as_files_are_told_apart(make_record: MakeRecord) -> None:
    record = make_record()
    names = {
        dataclasses.replace(record, dataset=dataclasses.replace(record.dataset, name=name)).name
        for name in ("vtab/pets", "vtab-pets", "vtab\\pets")
    }
    assert len(names) == 3
    assert all(name.startswith("vtab-pets.test.") for name in names)


def test_prompts_have_an_identity(make_record: MakeRecord, tmp_path: Path) -> None:
    base = make_record()
    details = base.result.details
    others = [
        {**details, "templates": ["a {c}"]},
        {**details, "templates": ["{c}", "a {c}"]},
        {**details, "classes": [{"name": name} for name in ("dog", "cat", "owl")]},
        {**details, "prompts": {"sha256": "0" * 64}},
    ]
    ids = []
    for number, entry in enumerate([details, *others, details]):
        ids.append(load_record(make_record(details=entry).save(tmp_path / str(number))).prompts_id)
    assert len(set(ids)) == len(ids) - 1
    assert ids[0] == ids[-1]
    assert load_record(make_record(details={"images": 3}).save(tmp_path)).prompts_id is None


def test_what_is_no_number_is_null(make_record: MakeRecord, tmp_path: Path) -> None:
    path = make_record(details={"loss": float("nan"), "path": [1.0, float("inf")], "in": {"x": -float("inf")}}).save(
        tmp_path
    )
    data = parse_json(path.read_text())
    assert data["details"] == {"loss": None, "path": [1.0, None], "in": {"x": None}}


@pytest.mark.parametrize("part", ["value", "low", "high"])
def test_a_score_that_is_no_number_is_not_written(make_record: MakeRecord, tmp_path: Path, part: str) -> None:
    metric = Metric(value=0.5, n=4, low=0.2, high=0.9, interval="Wilson")
    bad = make_record(metrics={"acc1": dataclasses.replace(metric, **{part: float("nan")})})
    good = make_record().save(tmp_path)
    with pytest.raises(DataError, match="acc1 is .* no score"):
        bad.save(tmp_path)
    assert load_record(good).metrics["acc1"].value == 0.625


def test_a_companion_of_another_run_is_not_read(make_record: MakeRecord, tmp_path: Path) -> None:
    saved = load_record(make_record().save(tmp_path / "a"))
    other = make_record(outcomes={"acc1": Outcomes(torch.zeros(4), torch.arange(4))})
    path = other.save(tmp_path / "b")
    outcomes = saved.path.with_suffix(".outcomes.safetensors")
    path.with_suffix(".outcomes.safetensors").replace(outcomes)
    with pytest.raises(DataError, match="not the file that"):
        saved.outcomes()
    outcomes.unlink()
    with pytest.raises(DataError, match="missing"):
        saved.outcomes()


def test_saving_again_leaves_no_companion_of_the_old_one(make_record: MakeRecord, tmp_path: Path) -> None:
    path = make_record().save(tmp_path)
    assert path.with_suffix(".probe.safetensors").exists()
    assert make_record(artefacts={}, outcomes={}).save(tmp_path) == path
    left = {entry.name.removeprefix(path.stem) for entry in tmp_path.glob(f"{path.stem}.*")}
    assert left == {".images", ".json", ".samples.jsonl"}
    assert load_record(path).outcomes() == {}


def test_equal_clusters_are_written_once(tmp_path: Path) -> None:
    count = 1000
    pairs = {f"m{n}": Outcomes(torch.rand(count), torch.arange(count)) for n in range(4)}
    write_outcomes(tmp_path / "same", pairs)
    assert (tmp_path / "same").stat().st_size < count * (4 * 4 + 8) + 1500
    pairs["own"] = Outcomes(torch.rand(count), torch.arange(count) // 5)
    write_outcomes(tmp_path / "other", pairs)
    back = read_outcomes(tmp_path / "other")
    assert all(torch.equal(back[name].clusters, entry.clusters) for name, entry in pairs.items())
    (tmp_path / "cut").write_bytes((tmp_path / "other").read_bytes()[:-8])
    with pytest.raises(DataError, match="cannot be read"):
        read_outcomes(tmp_path / "cut")


@pytest.mark.parametrize("text", ['{"schema": 1, "metrics": {"acc1": NaN}}', "[" * 5000, "\x00", '{"schema": "1"}'])
def test_a_file_that_is_no_strict_record(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"a\.json: not a"):
        load_record(tmp_path / "a.json")


def test_a_later_schema_is_refused(make_record: MakeRecord, tmp_path: Path) -> None:
    path = make_record().save(tmp_path)
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "schema": 99}))
    with pytest.raises(DataError, match="schema 1"):
        load_record(path)


def test_a_record_of_the_first_schema_without_settings_is_read(make_record: MakeRecord, tmp_path: Path) -> None:
    path = make_record().save(tmp_path)
    data = json.loads(path.read_text())
    for key in ("settings", "prompts", "files", "processes", "command", "store", "device_name"):
        data.pop(key, None)
    path.write_text(json.dumps(data))
    saved = load_record(path)
    assert saved.outcomes() == {}
    assert saved.language is None
    assert saved.prompts_id is not None
    assert saved.metrics["acc1"].n == 4


_KILLED = """
import os, signal, sys, pickle
from clip_eval.records import record
record.save_gallery = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
pickle.load(open(sys.argv[1], "rb")).save(sys.argv[2])
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_kill_in_the_middle_leaves_no_record(make_record: MakeRecord, tmp_path: Path) -> None:
    import pickle

    record = make_record()
    record.save(tmp_path / "out")
    (tmp_path / "record").write_bytes(pickle.dumps(record))
    done = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path / "record"), str(tmp_path / "out")], check=False)
    assert done.returncode == -9
    assert find_record(tmp_path / "out", record.name) is None
    assert not list((tmp_path / "out").glob("*.json"))
    record.save(tmp_path / "out")
    assert find_record(tmp_path / "out", record.name) is not None


@pytest.mark.skipif(os.name != "posix", reason="needs limits on file sizes")
@pytest.mark.parametrize("room", [100, 5_000, 100_000])
def test_a_full_disk_is_an_error_and_leaves_no_record(make_record: MakeRecord, tmp_path: Path, room: int) -> None:
    import resource

    outcomes = {"acc1": Outcomes(torch.ones(100_000), torch.arange(100_000))}
    record = make_record(outcomes=outcomes, samples=make_record().result.samples * 100)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(DataError, match="cannot be written"):
            record.save(tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "out").glob("*.json"))
    assert load_record(record.save(tmp_path / "out")).metrics == record.result.metrics


def test_what_was_left_out_is_in_the_record(make_classification, tmp_path: Path) -> None:
    dataset = open_dataset(make_classification())
    images = ImageFeatures(
        features=torch.eye(3),
        kept=torch.tensor([0, 2, 3]),
        excluded=(Excluded(1, "0.tar:s1.png", "cut short"),),
        seconds_decode=0.0,
        seconds_encode=0.0,
    )
    facts = dataset_facts(dataset, images)
    assert facts["excluded"]["count"] == 1
    assert facts["excluded"]["first"] == [{"name": "0.tar:s1.png", "reason": "cut short"}]
    whole = dataclasses.replace(images, excluded=())
    assert dataset_facts(dataset, whole)["excluded"]["sha256"] != facts["excluded"]["sha256"]


def test_equal_outcomes_are_equal_files(tmp_path: Path) -> None:
    """safetensors writes the entries of its metadata in an order that changes from one file to the next."""
    outcomes = {f"recall@{k}": Outcomes(torch.ones(4), torch.arange(4)) for k in range(12)}
    for number in range(4):
        write_outcomes(tmp_path / str(number), outcomes)
    assert len({(tmp_path / str(number)).read_bytes() for number in range(4)}) == 1
    assert list(read_outcomes(tmp_path / "0")) == sorted(outcomes)
