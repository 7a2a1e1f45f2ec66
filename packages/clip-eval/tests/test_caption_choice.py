"""Caption choice on features made to be right or wrong in one way, and on a real model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from clip_core.errors import DataError
from clip_eval import open_dataset
from clip_eval.encoder import Encoder
from clip_eval.features import ImageFeatures
from clip_eval.tasks.caption_choice import evaluate_caption_choice
from clip_eval.wds import Sample, WdsDataset

CAPTIONS = ("a dog on a cat", "a cat on a dog")


def choice_set(examples: list[str], captions: list[tuple[str, ...]], right: list[int], categories=()) -> WdsDataset:
    return WdsDataset(
        name="made",
        folder=Path("made"),
        split="test",
        kind="caption_choice",
        samples=tuple(Sample("0.tar", f"s{place}", {}) for place in range(len(examples))),
        captions=tuple(captions),
        right_captions=tuple(right),
        examples=tuple(examples),
        categories=tuple(categories),
    )


def features(rows: list[list[float]], kept: list[int] | None = None) -> ImageFeatures:
    return ImageFeatures(
        features=F.normalize(torch.tensor(rows), dim=-1),
        kept=torch.tensor(kept or range(len(rows))),
        excluded=(),
        seconds_decode=0,
        seconds_encode=0,
    )


class Texts:
    """An encoder that knows the features of some texts."""

    def __init__(self, known: dict[str, list[float]]) -> None:
        self.known = known

    def texts(self, texts) -> torch.Tensor:
        return F.normalize(torch.tensor([self.known[text] for text in texts]), dim=-1)

    def count_truncated(self, texts) -> int:
        return 0


TEXTS = Texts({CAPTIONS[0]: [1.0, 0.0], CAPTIONS[1]: [0.0, 1.0], "a bird": [1.0, 1.0]})


def test_winoground_asks_both_ways() -> None:
    # The first example is right both ways; in the second each image finds its caption, but both captions the second
    # image (its rows are not normalised to one length, so the cosines are compared after that).
    dataset = choice_set(["x", "x", "y", "y"], [CAPTIONS] * 4, [0, 1, 0, 1])
    images = features([[1.0, 0.2], [0.2, 1.0], [0.9, 1.0], [0.1, 1.0]])
    found = evaluate_caption_choice(TEXTS, dataset, images)
    values = {name: metric.value for name, metric in found.metrics.items()}
    assert values == {"text_acc": 0.5, "image_acc": 1.0, "acc": 0.5}
    assert found.outcomes["text_acc"].values.tolist() == [1, 0]
    assert found.outcomes["acc"].clusters.tolist() == [0, 2]
    assert [sample.right for sample in found.samples] == [True, True, False, True]
    assert found.samples[2].answers[0].text == CAPTIONS[1]
    assert found.samples[2].truth == (CAPTIONS[0],)
    assert found.details["examples"] == 2
    assert found.details["categories"] == {}


def test_sugar_crepe_has_no_image_accuracy_and_ties_are_misses() -> None:
    dataset = choice_set(["0", "1", "2"], [CAPTIONS] * 3, [0, 0, 0], ["swap", "swap", "add"])
    images = features([[1.0, 0.5], [0.5, 1.0], [1.0, 1.0]])
    found = evaluate_caption_choice(TEXTS, dataset, images)
    assert set(found.metrics) == {"text_acc", "acc"}
    accuracy = found.metrics["text_acc"]
    assert (accuracy.value, accuracy.pessimistic, accuracy.optimistic) == pytest.approx((1 / 3, 1 / 3, 2 / 3))
    assert found.ties == {"text_acc": pytest.approx(1 / 3)}
    assert found.metrics["acc"] == accuracy
    assert list(found.details["categories"]) == ["add", "swap"]
    assert found.details["categories"]["swap"]["acc"]["value"] == 0.5
    assert found.details["categories"]["add"]["acc"]["n"] == 1
    # The tie is shown as the miss that it counts as.
    assert [sample.right for sample in found.samples] == [True, False, False]
    assert found.samples[2].answers[0].right is False


def test_questions_about_one_picture_are_one_unit() -> None:
    dataset = choice_set(["0", "1", "2"], [CAPTIONS] * 3, [0, 1, 0])
    found = evaluate_caption_choice(TEXTS, dataset, features([[1.0, 0.5], [1.0, 0.5], [0.5, 1.0]]))
    assert found.outcomes["acc"].clusters.tolist() == [0, 0, 2]
    assert "clustered" in found.metrics["acc"].interval


def test_an_example_without_all_its_images_is_left_out() -> None:
    dataset = choice_set(["x", "x", "y", "y"], [CAPTIONS] * 4, [0, 1, 0, 1])
    images = features([[1.0, 0.2], [0.9, 1.0], [0.1, 1.0]], kept=[0, 2, 3])
    found = evaluate_caption_choice(TEXTS, dataset, images)
    assert (found.details["examples"], found.details["examples_left_out"]) == (1, 1)
    assert [sample.index for sample in found.samples] == [2, 3]
    assert found.outcomes["acc"].clusters.tolist() == [2]
    with pytest.raises(DataError, match="none of the 2 examples has all its images"):
        evaluate_caption_choice(TEXTS, dataset, features([[1.0, 0.2], [0.9, 1.0]], kept=[0, 2]))


def test_sets_that_cannot_be_asked_are_refused() -> None:
    images = features([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    with pytest.raises(DataError, match="some examples have one image and others several"):
        evaluate_caption_choice(TEXTS, choice_set(["x", "x", "y"], [CAPTIONS] * 3, [0, 1, 0]), images)
    mixed = choice_set(["x", "x"], [CAPTIONS, (CAPTIONS[0], "a bird")], [1, 0])
    with pytest.raises(DataError, match="have different captions to choose from"):
        evaluate_caption_choice(TEXTS, mixed, features([[1.0, 0.0], [0.0, 1.0]]))


def test_a_real_model_agrees_with_a_direct_computation(bundle, make_retrieval) -> None:
    pairs = open_dataset(make_retrieval(["a cat\na dog\nan owl", "two cats\none cat", "a\nb", "c\nd"]))
    right = (2, 0, 1, 0)
    dataset = dataclasses.replace(
        pairs, kind="caption_choice", right_captions=right, examples=tuple("abcd"), categories=()
    )
    encoder = Encoder(bundle=bundle)
    images = encoder.images(dataset)
    found = evaluate_caption_choice(encoder, dataset, images)
    expected = []
    for row, captions, place in zip(images.features, dataset.captions, right, strict=True):
        with torch.no_grad():
            texts = F.normalize(bundle.model.encode_text(bundle.tokenizer(list(captions))), dim=-1)
        expected.append(int((texts @ row).argmax()) == place)
    assert found.outcomes["text_acc"].values.tolist() == expected
