"""The encoder gives what clip-core gives, once per distinct text."""

from __future__ import annotations

import dataclasses

import torch

from clip_core import Bundle
from clip_core.zero_shot import build_zero_shot_classifier
from clip_eval.encoder import Encoder
from clip_eval.wds import Sample, open_dataset, read_image_bytes

NAMES = ("cat", "dog")
TEMPLATES = ("a photo of a {c}.", "a drawing of a {c}.")


def test_classifier_is_that_of_clip_core(bundle: Bundle) -> None:
    found = Encoder(bundle=bundle).classifier(NAMES, TEMPLATES)
    expected = build_zero_shot_classifier(bundle.model, bundle.tokenizer, NAMES, TEMPLATES)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_equal_texts_have_equal_rows(bundle: Bundle) -> None:
    features = Encoder(bundle=bundle).texts(["a cat", "a dog", "a cat"])
    assert torch.equal(features[0], features[2])
    assert not torch.equal(features[0], features[1])
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))


def test_images_in_files_of_their_own_are_encoded_in_batches(
    bundle, tmp_path, make_classification, monkeypatch
) -> None:
    dataset = open_dataset(make_classification())
    samples = []
    for number, sample in enumerate(dataset.samples):
        data, _ = read_image_bytes(sample)
        path = tmp_path / f"{number}.png"
        path.write_bytes(data)
        samples.append(Sample(str(path), str(number), {"png": (0, len(data))}))
    sizes: list[int] = []
    honest = bundle.model.encode_image

    def encode(pixels, **named):
        sizes.append(len(pixels))
        return honest(pixels, **named)

    monkeypatch.setattr(bundle.model, "encode_image", encode)
    expected = Encoder(bundle=bundle).images(dataset).features
    sizes.clear()
    found = Encoder(bundle=bundle).images(dataclasses.replace(dataset, samples=tuple(samples))).features
    assert sizes == [len(samples)]
    assert len(samples) > 1
    assert torch.allclose(found, expected, atol=1e-6)
