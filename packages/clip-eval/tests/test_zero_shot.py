"""Zero-shot classification against a direct computation with the same model."""

from __future__ import annotations

import pytest
import torch

from clip_core.zero_shot import build_zero_shot_classifier
from clip_eval import evaluate, open_dataset
from clip_eval.features import encode_images


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
    assert record.result.details["prompts_truncated"] == 0
    long = evaluate(bundle, open_dataset(digits / "digits"), templates=["{c}", "the " * 40 + "{c}"])
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
