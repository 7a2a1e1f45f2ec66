"""Retrieval against a direct computation with the same model."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clip_core.errors import ConfigError
from clip_eval import evaluate, open_dataset
from clip_eval.encoder import Encoder
from clip_eval.tasks import evaluate_retrieval


def test_retrieval_record_agrees_with_a_direct_computation(bundle, make_retrieval) -> None:
    dataset = open_dataset(make_retrieval(["a cat\nan animal", "a dog", "an owl\na bird\nnight", "a red house"]))
    record = evaluate(bundle, dataset)
    images = Encoder(bundle=bundle).images(dataset).features
    captions = [caption for group in dataset.captions for caption in group]
    owners = torch.tensor([0, 0, 1, 2, 2, 2, 3])
    with torch.no_grad():
        texts = F.normalize(bundle.model.encode_text(bundle.tokenizer(captions)), dim=-1)
    scores = texts @ images.T
    by_text = (scores.argmax(dim=1) == owners).float().mean()
    by_image = (owners[scores.argmax(dim=0)] == torch.arange(4)).float().mean()
    assert record.result.metrics["image_retrieval_recall@1"].value == pytest.approx(float(by_text))
    assert record.result.metrics["text_retrieval_recall@1"].value == pytest.approx(float(by_image))
    counts = {"images": 4, "captions": 7, "distinct_captions": 7, "shared_captions": 0, "captions_truncated": 0}
    assert record.result.details.items() >= counts.items()
    first = record.result.samples[0]
    assert first.answers[0].text == captions[int(scores[:, 0].argmax())]
    assert first.truth == ("a cat", "an animal")


def test_captions_of_a_broken_image_are_left_out_with_it(bundle, make_retrieval, png) -> None:
    texts, images = ["a cat", "a dog\na hound", "an owl"], [png(0), b"broken", png(2)]
    record = evaluate(bundle, open_dataset(make_retrieval(texts, images)))
    assert (record.result.details["images"], record.result.details["captions"]) == (2, 2)
    assert [sample.truth for sample in record.result.samples] == [("a cat",), ("an owl",)]
    facts = record.to_json()["dataset"]
    assert (facts["samples"], facts["evaluated"], facts["excluded"]["count"]) == (3, 2, 1)
    assert facts["excluded"]["first"][0]["name"].endswith("0.tar:s0000001.png")


def test_captions_longer_than_the_context_are_counted(bundle, make_retrieval, caplog) -> None:
    record = evaluate(bundle, open_dataset(make_retrieval(["a cat", "a dog " * 40, "an owl\n" + "a bird " * 40])))
    assert record.result.details["captions_truncated"] == 2
    assert "2 of 4 texts are cut to the context length 32" in caplog.text


def test_what_each_query_scored_averages_to_the_metric(bundle, make_retrieval, png) -> None:
    texts, images = ["a cat\na red cat", "a dog", "an owl\na bird\nnight"], [png(0), b"broken", png(2)]
    result = evaluate(bundle, open_dataset(make_retrieval(texts, images))).result
    for name, outcomes in result.outcomes.items():
        assert float(outcomes.values.double().mean()) == pytest.approx(result.metrics[name].value)
    recalls = {name for name in result.metrics if "recall" in name}
    assert set(result.outcomes) == recalls
    assert len(recalls) == 7
    assert result.outcomes["image_retrieval_recall@1"].clusters.tolist() == [0, 0, 2, 2, 2]
    assert result.outcomes["text_retrieval_recall@1"].clusters.tolist() == [0, 2]
    assert result.outcomes["mean_recall@1"].clusters.tolist() == [0, 2]


def test_the_same_caption_of_two_images_ties(bundle, make_retrieval) -> None:
    dataset = open_dataset(make_retrieval(["a cat", "a cat\na dog", "a cat", "a bird\na bird"]))
    result = evaluate(bundle, dataset).result
    # Two captions of one image with the same text are both right, and no tie.
    assert result.details["shared_captions"] == 3
    assert result.details["distinct_captions"] == 3
    assert result.ties["text_retrieval"] >= 0.5
    recall = result.metrics["text_retrieval_recall@1"]
    assert recall.pessimistic <= recall.value <= recall.optimistic


def test_a_gallery_smaller_than_k_is_said(bundle, make_retrieval, caplog) -> None:
    dataset = open_dataset(make_retrieval(["a cat\na dog", "an owl\na bird"]))
    encoder = Encoder(bundle=bundle)
    images = encoder.images(dataset)
    result = evaluate_retrieval(encoder, dataset, images, ks=[3, 1, 3])
    assert result.details["ks"] == [1, 3]
    assert result.details["whole_gallery"] == ["image_retrieval_recall@3"]
    assert result.metrics["image_retrieval_recall@3"].value == 1
    assert "1 whatever the model does: image_retrieval_recall@3" in caplog.text
    for wrong in (0, -1, 2.5, True):
        with pytest.raises(ConfigError, match="a whole number from 1 on"):
            evaluate_retrieval(encoder, dataset, images, ks=[1, wrong])


def test_other_languages_ask_the_same_images(bundle, make_retrieval) -> None:
    folder = make_retrieval(["a cat", "a dog", "an owl"])
    captions = folder / "test" / "captions"
    captions.mkdir()
    (captions / "de.txt").write_text("eine Katze\n\neine Eule\n", encoding="utf-8")
    (captions / "fr.jsonl").write_text('["un chat", "le chat"]\n["un chien"]\n[]\n', encoding="utf-8")
    dataset = open_dataset(folder)
    encoder = Encoder(bundle=bundle)
    images = encoder.images(dataset)
    found = {name: evaluate_retrieval(encoder, dataset, images, language=name) for name in ("de", "fr")}
    assert [entry.details["captions"] for entry in found.values()] == [2, 3]
    assert [entry.details["images_without_caption"] for entry in found.values()] == [1, 1]
    assert found["de"].details["language"] == "de"
    assert found["de"].metrics["text_retrieval_recall@1"].n == 2
    assert found["fr"].outcomes["text_retrieval_recall@1"].clusters.tolist() == [0, 1]
    # The image without a caption is one of three that the others stand beside.
    assert found["de"].details["whole_gallery"][0] == "image_retrieval_recall@5"
    assert [sample.key for sample in found["fr"].samples] == ["s0000000", "s0000001", "s0000002"]
    assert found["fr"].samples[2].truth == ()
