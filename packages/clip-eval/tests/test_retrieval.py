"""Retrieval against a direct computation with the same model."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clip_eval import evaluate, open_dataset
from clip_eval.features import encode_images


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
    assert record.result.details == {"images": 4, "captions": 7, "distinct_captions": 7, "captions_truncated": 0}
    first = record.result.samples[0]
    assert first.answers[0].text == captions[int(scores[:, 0].argmax())]
    assert first.truth == ("a cat", "an animal")


def test_captions_of_a_broken_image_are_left_out_with_it(bundle, make_retrieval, png) -> None:
    texts, images = ["a cat", "a dog\na hound", "an owl"], [png(0), b"broken", png(2)]
    record = evaluate(bundle, open_dataset(make_retrieval(texts, images)))
    assert record.result.details == {"images": 2, "captions": 2, "distinct_captions": 2, "captions_truncated": 0}
    assert [sample.truth for sample in record.result.samples] == [("a cat",), ("an owl",)]
    facts = record.to_json()["dataset"]
    assert (facts["samples"], facts["evaluated"], facts["excluded"]["count"]) == (3, 2, 1)
    assert facts["excluded"]["first"][0]["name"].endswith("0.tar:s0000001.png")


def test_captions_longer_than_the_context_are_counted(bundle, make_retrieval, caplog) -> None:
    record = evaluate(bundle, open_dataset(make_retrieval(["a cat", "a dog " * 40, "an owl\n" + "a bird " * 40])))
    assert record.result.details["captions_truncated"] == 2
    assert "2 of 4 texts are cut to the context length 32" in caplog.text
