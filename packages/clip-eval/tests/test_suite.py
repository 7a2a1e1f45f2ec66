"""From a model and a folder to a record, and what the record says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from clip_core.errors import DataError
from clip_core.zero_shot import build_zero_shot_classifier
from clip_eval import evaluate, open_dataset, read_records
from clip_eval.features import encode_images
from clip_eval.gallery import choose
from clip_eval.suite import model_facts
from clip_eval.tasks.result import SampleResult


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


def test_zero_shot_record_agrees_with_a_direct_computation(bundle, digits) -> None:
    dataset = open_dataset(digits / "digits")
    record = evaluate(bundle, dataset, model_name="m", batch_size=100)
    features = encode_images(bundle, dataset.samples).features
    weights = build_zero_shot_classifier(bundle.model, bundle.tokenizer, dataset.classnames, dataset.templates)
    guesses = (features @ weights).argmax(dim=1)
    right = guesses == torch.tensor(dataset.labels)
    assert record.result.metrics["acc1"].value == pytest.approx(int(right.sum()) / 360)
    assert [sample.right for sample in record.result.samples] == right.tolist()
    assert [sample.answers[0].text for sample in record.result.samples] == [dataset.classnames[g] for g in guesses]
    assert sum(map(sum, record.result.details["confusion"])) == 360
    assert record.result.details["templates"] == list(dataset.templates)


def test_other_prompts_can_be_given(bundle, digits) -> None:
    record = evaluate(bundle, open_dataset(digits / "digits"), templates=["{c}"])
    assert record.result.details["templates"] == ["{c}"]


def test_retrieval_record_agrees_with_a_direct_computation(bundle, make_retrieval) -> None:
    dataset = open_dataset(make_retrieval(["a cat\nan animal", "a dog", "an owl\na bird\nnight", "a red house"]))
    record = evaluate(bundle, dataset)
    images = encode_images(bundle, dataset.samples).features
    captions = [caption for group in dataset.captions for caption in group]
    owners = torch.tensor([0, 0, 1, 2, 2, 2, 3])
    with torch.no_grad():
        texts = F.normalize(bundle.model.encode_text(bundle.tokenizer(captions)), dim=-1)
    scores = texts @ images.T
    by_text = (scores.argmax(dim=1) == owners).float().mean()
    by_image = (owners[scores.argmax(dim=0)] == torch.arange(4)).float().mean()
    assert record.result.metrics["image_retrieval_recall@1"].value == pytest.approx(float(by_text))
    assert record.result.metrics["text_retrieval_recall@1"].value == pytest.approx(float(by_image))
    assert record.result.details == {"images": 4, "captions": 7, "distinct_captions": 7}
    first = record.result.samples[0]
    assert first.answers[0].text == captions[int(scores[:, 0].argmax())]
    assert first.truth == ("a cat", "an animal")


def test_captions_of_a_broken_image_are_left_out_with_it(bundle, make_retrieval, png) -> None:
    texts, images = ["a cat", "a dog\na hound", "an owl"], [png(0), b"broken", png(2)]
    record = evaluate(bundle, open_dataset(make_retrieval(texts, images)))
    assert record.result.details == {"images": 2, "captions": 2, "distinct_captions": 2}
    assert [sample.truth for sample in record.result.samples] == [("a cat",), ("an owl",)]
    facts = record.to_json()["dataset"]
    assert (facts["samples"], facts["evaluated"], facts["excluded"]["count"]) == (3, 2, 1)
    assert facts["excluded"]["first"][0]["name"].endswith("0.tar:s0000001.png")


def test_a_broken_image_keeps_the_labels_in_step(bundle, make_classification, png) -> None:
    whole = open_dataset(make_classification(name="whole"))
    images = [png(0), b"broken", png(2), png(3)]
    cut = open_dataset(make_classification(name="cut", images=images))
    complete = {s.index: s for s in evaluate(bundle, whole).result.samples}
    for sample in evaluate(bundle, cut).result.samples:
        assert sample.truth == complete[sample.index].truth
        assert [answer.text for answer in sample.answers] == [a.text for a in complete[sample.index].answers]


def test_record_on_disk(results: Path) -> None:
    records = {data["task"]: (path, data) for path, data in read_records(results)}
    assert set(records) == {"zero_shot_classification", "retrieval"}
    for path, _ in records.values():
        data = strict(path.read_text(encoding="utf-8"))
        assert data["schema"] == 1
        for metric in data["metrics"].values():
            assert metric["low"] <= metric["value"] <= metric["high"]
            assert metric["pessimistic"] <= metric["value"] <= metric["optimistic"]
            assert metric["n"] == data["dataset"]["evaluated"]
        assert data["model"]["name"] == "untrained"
        assert data["dataset"]["about"]["notes"]
        assert data["precision"]["model"] == "float32"
        assert {"python", "torch", "clip-core", "clip-eval"} <= set(data["versions"])
        assert data["seconds"]["total"] > 0
        lines = path.with_suffix(".samples.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(lines) == data["dataset"]["evaluated"]
        assert all(len(strict(line)["answers"]) == 3 for line in lines)
        thumbnails = list(path.with_suffix(".images").glob("*.png"))
        assert 12 <= len(thumbnails) <= 24
        with Image.open(thumbnails[0]) as image:
            assert image.size == (32, 32)


def test_a_second_save_replaces_the_first(bundle, make_classification, tmp_path: Path) -> None:
    record = evaluate(bundle, open_dataset(make_classification()))
    first, second = record.save(tmp_path / "out"), record.save(tmp_path / "out")
    assert first == second
    assert len(read_records(tmp_path / "out")) == 1


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


def test_collapsed_classes_are_reported_as_ties(bundle, make_classification) -> None:
    dataset = open_dataset(make_classification(["0", "1"], classnames="cat\ncat\n"), allow_duplicate_classnames=True)
    record = evaluate(bundle, dataset)
    acc1 = record.result.metrics["acc1"]
    assert record.result.ties == {"acc1": 1.0}
    assert (acc1.pessimistic, acc1.value, acc1.optimistic) == (0.0, 0.5, 1.0)


@pytest.mark.parametrize("text", ["{", "[]", '{"notes": "one"}'])
def test_a_damaged_about_file(bundle, make_classification, text: str) -> None:
    folder = make_classification()
    (folder / "about.json").write_text(text)
    with pytest.raises(DataError, match=r"about\.json"):
        evaluate(bundle, open_dataset(folder))


def test_gallery_takes_both_kinds_evenly() -> None:
    samples = [SampleResult(n, str(n), ("x",), n % 10 != 0, ()) for n in range(100)]
    chosen = choose(samples, right=5, wrong=4)
    assert [s.index for s in chosen if not s.right] == [10, 30, 60, 80]
    assert len([s for s in chosen if s.right]) == 5
    assert [s.index for s in chosen] == sorted(s.index for s in chosen)
    few = [dataclasses.replace(sample, right=True) for sample in samples[:3]]
    assert choose(few) == few


def test_folders_without_or_with_damaged_records(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no evaluation record"):
        read_records(tmp_path)
    (tmp_path / "a.json").write_text('{"schema": 1')
    with pytest.raises(DataError, match=r"a\.json: not a readable record"):
        read_records(tmp_path)
    (tmp_path / "a.json").write_text('{"name": "package"}')
    with pytest.raises(DataError, match="not an evaluation record of schema 1"):
        read_records(tmp_path)
