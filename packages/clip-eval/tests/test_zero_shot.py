"""Zero-shot classification against a direct computation with the same model."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from clip_core.errors import ConfigError, DataError
from clip_core.zero_shot import build_zero_shot_classifier
from clip_eval import evaluate, open_dataset
from clip_eval.catalogue.entry import Groups
from clip_eval.encoder import Encoder
from clip_eval.evaluation import Options
from clip_eval.features import ImageFeatures
from clip_eval.tasks.zero_shot import LARGEST_MATRIX, evaluate_zero_shot, resolve_prompts
from clip_eval.wds import Sample, WdsDataset


def test_zero_shot_record_agrees_with_a_direct_computation(bundle, digits) -> None:
    dataset = open_dataset(digits / "digits")
    record = evaluate(bundle, dataset, model_name="m", batch_size=100)
    features = Encoder(bundle=bundle, batch_size=100).images(dataset).features
    weights = build_zero_shot_classifier(bundle.model, bundle.tokenizer, dataset.classnames, dataset.templates)
    guesses = (features @ weights).argmax(dim=1)
    right = guesses == torch.tensor(dataset.labels)
    assert record.result.metrics["acc1"].value == pytest.approx(int(right.sum()) / 360)
    assert [sample.right for sample in record.result.samples] == right.tolist()
    assert [sample.answers[0].text for sample in record.result.samples] == [dataset.classnames[g] for g in guesses]
    assert sum(map(sum, record.result.details["confusion"])) == 360
    assert record.result.details["templates"] == list(dataset.templates)


def test_other_prompts_can_be_given(bundle, digits) -> None:
    record = evaluate(bundle, open_dataset(digits / "digits"), options=Options(templates=["{c}"]))
    assert record.result.details["templates"] == ["{c}"]
    assert record.result.details["prompts_truncated"] == 0
    long = evaluate(bundle, open_dataset(digits / "digits"), options=Options(templates=["{c}", "the " * 40 + "{c}"]))
    assert long.result.details["prompts_truncated"] == 10


def test_a_broken_image_keeps_the_labels_in_step(bundle, make_classification, png) -> None:
    whole = open_dataset(make_classification(name="whole"))
    images = [png(0), b"broken", png(2), png(3)]
    cut = open_dataset(make_classification(name="cut", images=images))
    complete = {s.index: s for s in evaluate(bundle, whole).result.samples}
    for sample in evaluate(bundle, cut).result.samples:
        assert sample.truth == complete[sample.index].truth
        assert [answer.text for answer in sample.answers] == [a.text for a in complete[sample.index].answers]


def test_collapsed_classes_are_reported_as_ties(bundle, make_classification) -> None:
    dataset = open_dataset(make_classification(["0", "1"], classnames="cat\ncat\n"), allow_duplicate_classnames=True)
    record = evaluate(bundle, dataset)
    acc1 = record.result.metrics["acc1"]
    assert record.result.ties == {"acc1": 1.0}
    assert (acc1.pessimistic, acc1.value, acc1.optimistic) == (0.0, 0.5, 1.0)


def made_up(labels: list[int], classes: int, features: torch.Tensor, **fields: Any) -> tuple[WdsDataset, ImageFeatures]:
    """A data set without files, and its features."""
    samples = tuple(Sample("0.tar", f"s{number}", {"png": (0, 1)}) for number in range(len(labels)))
    names = fields.pop("classnames", tuple(f"class {number}" for number in range(classes)))
    dataset = WdsDataset(
        **{
            "name": "made_up",
            "folder": SimpleNamespace(),
            "split": "test",
            "kind": "classification",
            "samples": samples,
            "classnames": names,
            "templates": ("a {c}",),
            "labels": tuple(labels),
            **fields,
        }
    )
    kept = torch.arange(len(labels))
    images = ImageFeatures(features=features, kept=kept, excluded=(), seconds_decode=0.0, seconds_encode=0.0)
    return dataset, images


class Directions:
    """An encoder whose classes are the axes, in the order in which they are asked for; equal prompts are equal."""

    def __init__(self, width: int) -> None:
        self.bundle = SimpleNamespace(model=SimpleNamespace(logit_scale=torch.tensor(10.0).log()))
        self.width = width
        self.asked: dict[str, list[str]] = {}

    def classifier(self, prompts: dict[str, list[str]]) -> torch.Tensor:
        self.asked = dict(prompts)
        distinct = list(dict.fromkeys(map(tuple, prompts.values())))
        return torch.stack([torch.eye(self.width)[distinct.index(tuple(texts))] for texts in prompts.values()], dim=1)

    def count_truncated(self, texts: list[str]) -> int:
        return sum(len(text) > 30 for text in texts)


def test_what_each_image_scored_has_the_metric_as_its_mean() -> None:
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(6, (90,), generator=random).tolist()
    features = torch.nn.functional.normalize(torch.randn(90, 7, generator=random), dim=1)
    features[:10] = features[0].clone().fill_(7**-0.5)  # ties
    dataset, images = made_up(labels, 7, features)
    result = evaluate_zero_shot(Directions(7), dataset, images)
    assert set(result.outcomes) == {"acc1", "acc5", "mean_per_class_recall"}
    for name, outcome in result.outcomes.items():
        assert float(outcome.values.mean()) == pytest.approx(result.metrics[name].value, abs=1e-6)
        assert torch.equal(outcome.clusters, images.kept)
    assert result.details["chance"] == {"acc1": 1 / 7, "acc5": 5 / 7, "mean_per_class_recall": 1 / 7}
    calibration = result.details["calibration"]
    assert calibration["logit_scale"] == pytest.approx(10)
    assert sum(entry["n"] for entry in calibration["bins"]) == 90
    json.dumps(result.details, allow_nan=False)


def test_fewer_than_five_classes_have_no_accuracy_within_five() -> None:
    dataset, images = made_up([0, 1, 2], 3, torch.eye(3))
    result = evaluate_zero_shot(Directions(3), dataset, images)
    assert set(result.metrics) == set(result.details["chance"]) == {"acc1", "mean_per_class_recall"}
    assert result.metrics["acc1"].value == 1


def test_prompts_in_full_go_by_name_and_not_by_place() -> None:
    dataset, images = made_up([0, 1, 2], 3, torch.eye(3))
    encoder = Directions(3)
    texts = {f"class {number}": [f"prompt {number}", "a long prompt " * 5] for number in (2, 0, 1)}
    result = evaluate_zero_shot(encoder, dataset, images, templates={**texts, "unused": ["x"]})
    assert [prompts[0] for prompts in encoder.asked.values()] == ["prompt 0", "prompt 1", "prompt 2"]
    assert result.metrics["acc1"].value == 1
    assert result.details["templates"] is None
    assert result.details["prompts_truncated"] == 3
    about = result.details["prompts"]
    assert (about["per_class"], about["count"]) == (True, 6)
    other = evaluate_zero_shot(encoder, dataset, images, templates={**texts, "class 0": ["another"]})
    assert other.details["prompts"]["sha256"] != about["sha256"]
    with pytest.raises(ConfigError, match="No list of prompts for 2 of 3 classes of made_up: 'class 0', 'class 1'"):
        evaluate_zero_shot(encoder, dataset, images, templates={"class 2": ["x"], "class 1": "a string"})


def test_names_of_the_user_and_of_other_languages() -> None:
    dataset, images = made_up([0, 1, 2], 3, torch.eye(3))
    encoder = Directions(3)
    result = evaluate_zero_shot(encoder, dataset, images, classnames=["gatto", "cane", "gufo"], templates=["un {c}"])
    assert list(encoder.asked.values()) == [["un gatto"], ["un cane"], ["un gufo"]]
    assert [entry["name"] for entry in result.details["classes"]] == ["gatto", "cane", "gufo"]
    assert result.samples[1].truth == ("cane",)
    with pytest.raises(ConfigError, match="has 3 classes, and 2 names"):
        resolve_prompts(dataset, None, ["gatto", "cane"])
    with pytest.raises(DataError, match="occur more than once"):
        resolve_prompts(dataset, None, ["gatto", "gatto", "cane"])
    with pytest.raises(ConfigError, match="no place for the class"):
        resolve_prompts(dataset, ["a photo"])


def test_two_classes_of_one_name_are_a_reported_tie() -> None:
    names = ("missile", "owl", "missile")
    dataset, images = made_up([0, 0, 1, 2], 3, torch.eye(3)[[0, 0, 1, 0]], classnames=names)
    result = evaluate_zero_shot(Directions(3), dataset, images)
    acc1 = result.metrics["acc1"]
    assert (acc1.pessimistic, acc1.value, acc1.optimistic) == (0.25, 0.625, 1.0)
    assert result.details["duplicate_classnames"] == [{"name": "missile", "classes": [0, 2], "images": 3}]
    # Prompts of their own, CuPL's for example, do not help where they go by the name.
    full = evaluate_zero_shot(Directions(3), dataset, images, templates={"missile": ["m"], "owl": ["o"]})
    assert full.ties["acc1"] == 0.75


def test_large_confusion_matrices_stay_out_of_the_record() -> None:
    classes = LARGEST_MATRIX + 1
    labels = list(range(classes))
    dataset, images = made_up(labels, classes, torch.eye(classes).roll(1, 0))
    result = evaluate_zero_shot(Directions(classes), dataset, images)
    assert "confusion" not in result.details
    assert len(result.details["confusions"]) == 100
    assert result.details["confusions"][0]["count"] == 1
    whole = result.artefacts["confusion"]["confusion"]
    assert int(whole.sum()) == classes
    assert int(whole[1, 0]) == 1


REGIONS = Groups(
    fields=("region", "year", "y"), by=(("year",), ("region",)), values={"region": ("Asia", "Europe", "Other")}
)


def test_worst_region_leaves_out_what_wilds_leaves_out() -> None:
    labels = [0, 1, 0, 1, 0, 1, 0, 0]
    features = torch.eye(5)[[0, 1, 0, 1, 0, 0, 1, 1]]
    regions = [0, 0, 0, 1, 1, 1, 2, 2]
    metadata = tuple((float(region), float(place % 2), 0.0) for place, region in enumerate(regions))
    dataset, images = made_up(labels, 5, features, metadata=metadata)
    result = evaluate_zero_shot(Directions(5), dataset, images, groups=REGIONS, main_metric="acc_worst_region")
    found = {name: metric.value for name, metric in result.metrics.items()}
    assert found["acc_avg"] == found["acc1"] == 5 / 8
    assert found["acc_worst_region"] == pytest.approx(2 / 3)
    assert found["acc_worst_region_all"] == 0
    assert found["acc_worst_year"] == 2 / 4
    rows = result.details["groups"]["region"]
    assert [(row["key"], row["name"], row["n"]) for row in rows] == [
        ("acc_region:0", "Asia", 3),
        ("acc_region:1", "Europe", 3),
        ("acc_region:2", "Other", 2),
    ]
    assert result.details["worst_groups"]["acc_worst_region"] == {"name": "Europe", "left_out": ["Other"]}
    assert result.metrics["acc_worst_region"].n == 6
    five = evaluate_zero_shot(Directions(5), dataset, images, groups=REGIONS, main_metric="acc_top5_wg")
    assert five.metrics["acc_top5_worst_region"].value == 1
    macro = evaluate_zero_shot(Directions(5), dataset, images, groups=REGIONS, main_metric="F1-macro_all")
    assert {"acc_avg", "recall-macro_all", "F1-macro_all"} <= set(macro.metrics)
    assert "groups" not in macro.details


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ((), "have no metadata"),
        (((0.0, 1.0),) * 2, r"\[2\] numbers per image, expected 3"),
        (((0.5, 1.0, 0.0),) * 2, "whole numbers from 0"),
    ],
)
def test_metadata_that_do_not_fit(metadata: tuple[tuple[float, ...], ...], message: str) -> None:
    dataset, images = made_up([0, 1], 2, torch.eye(2), metadata=metadata)
    with pytest.raises(DataError, match=message):
        evaluate_zero_shot(Directions(2), dataset, images, groups=REGIONS, main_metric="acc_wg")


def test_groups_of_left_out_images_are_left_out(bundle, make_classification, png) -> None:
    dataset = open_dataset(make_classification(images=[png(0), b"broken", png(2), png(3)]))
    dataset = dataclasses.replace(
        dataset, metadata=((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (2.0, 0.0, 0.0))
    )
    encoder = Encoder(bundle=bundle)
    result = evaluate_zero_shot(encoder, dataset, encoder.images(dataset), groups=REGIONS, main_metric="acc_wg")
    assert [row["n"] for row in result.details["groups"]["region"]] == [2, 1]
