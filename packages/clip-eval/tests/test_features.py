"""Encoding: the model's own features in order, whatever the batches and threads; bad pictures counted, NaN refused."""

from __future__ import annotations

import dataclasses
import logging

import pytest
import torch
import torch.nn.functional as F

import clip_core
from clip_core.errors import ConfigError, DataError
from clip_core.zero_shot import encode_texts
from clip_eval.encoder import Encoder
from clip_eval.features import check_finite
from clip_eval.wds import open_dataset, read_image_bytes

TEXTS = ["a red house", "a cat", "a dog", "a cat on a mat", "a cat"]


def test_features_are_the_models_in_the_order_of_the_data(bundle, make_classification) -> None:
    dataset = open_dataset(make_classification(labels=["0"] * 37))
    pictures = [bundle.preprocess(clip_core.open_image(read_image_bytes(sample)[0])) for sample in dataset.samples]
    with torch.no_grad():
        expected = F.normalize(bundle.model.encode_image(torch.stack(pictures)), dim=-1)
    for batch_size, workers in ((64, 0), (5, 3), (10, 1), (1, 0)):
        found = Encoder(bundle=bundle, batch_size=batch_size, workers=workers).images(dataset)
        assert found.features.dtype == torch.float32
        assert torch.allclose(found.features, expected, atol=1e-5)
        assert found.kept.tolist() == list(range(37))
        assert found.excluded == ()


def test_alone_each_row_is_the_same_to_the_last_bit_in_any_batch(bundle, make_classification) -> None:
    dataset = open_dataset(make_classification(labels=["0"] * 20))
    encoders = [Encoder(bundle=bundle, batch_size=size, deterministic=True) for size in (3, 20)]
    first, second = (encoder.images(dataset).features for encoder in encoders)
    assert torch.equal(first, second)
    assert torch.equal(encoders[0].texts(TEXTS), encoders[1].texts([*TEXTS, "another"])[:5])


def test_texts_are_the_models_in_their_order(bundle) -> None:
    expected = encode_texts(bundle.model, bundle.tokenizer, TEXTS)
    for batch_size, workers in ((64, 0), (1, 2)):
        found = Encoder(bundle=bundle, batch_size=batch_size, workers=workers).texts(TEXTS)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    with pytest.raises(ConfigError, match="texts is"):
        Encoder(bundle=bundle).texts("a cat")


def test_short_weights_still_give_float32_features_of_length_one(bundle, make_classification) -> None:
    dataset = open_dataset(make_classification())
    full = Encoder(bundle=bundle).images(dataset).features
    bundle.model.bfloat16()
    found = Encoder(bundle=bundle).images(dataset).features
    assert found.dtype == torch.float32
    assert torch.allclose(found.norm(dim=1), torch.ones(4), atol=1e-6)
    assert (found * full).sum(dim=1).min() > 0.99


def test_broken_images_are_left_out_counted_and_named(bundle, make_classification, caplog, png) -> None:
    whole = png(1, edge=64)
    images = [png(0), whole[: len(whole) // 2], b"no image", png(3)]
    dataset = open_dataset(make_classification(images=images))
    with caplog.at_level(logging.WARNING):
        found = Encoder(bundle=bundle, batch_size=2, workers=2).images(dataset)
    assert found.kept.tolist() == [0, 3]
    assert len(found.features) == 2
    assert [entry.index for entry in found.excluded] == [1, 2]
    for entry, record in zip(found.excluded, caplog.records, strict=True):
        assert entry.name.endswith(f"0.tar:s000000{entry.index}.png")
        assert entry.name in record.getMessage()
        assert entry.reason in record.getMessage()


def test_a_whole_batch_of_broken_images(bundle, make_classification, png) -> None:
    images = [b"x", b"y", png(2), png(3)]
    found = Encoder(bundle=bundle, batch_size=2).images(open_dataset(make_classification(images=images)))
    assert found.kept.tolist() == [2, 3]


def test_no_image_at_all_is_an_error(bundle, make_classification) -> None:
    dataset = open_dataset(make_classification(labels=["0", "1"], images=[b"x", b"y"]))
    with pytest.raises(DataError, match=r"None of the 2 images can be decoded\..*s0000000\.png"):
        Encoder(bundle=bundle).images(dataset)


def test_a_shard_that_vanishes_is_an_error_not_an_exclusion(bundle, make_classification) -> None:
    folder = make_classification()
    dataset = open_dataset(folder)
    (folder / "test" / "0.tar").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        Encoder(bundle=bundle, workers=2).images(dataset)


def test_features_that_are_not_numbers_are_refused(bundle, make_classification) -> None:
    dataset = open_dataset(make_classification())
    with torch.no_grad():
        bundle.model.visual.proj.fill_(torch.nan)
        bundle.model.text_projection.fill_(torch.inf)
    encoder = Encoder(bundle=bundle)
    with pytest.raises(DataError, match=r"4 of 4 images .* not finite; first '.*0\.tar:s0000000"):
        encoder.images(dataset)
    with pytest.raises(DataError, match="texts .* not finite; first 'a cat'"):
        encoder.texts(["a cat", "a dog"])


def test_the_first_bad_row_is_named() -> None:
    rows = torch.ones(3, 2)
    rows[1, 1], rows[2, 0] = torch.nan, -torch.inf
    with pytest.raises(DataError, match="2 of 3 things .* first 'b'"):
        check_finite(rows, ["a", "b", "c"], "thing")


def test_arguments_out_of_range(bundle) -> None:
    with pytest.raises(ConfigError, match="batch_size=0"):
        Encoder(bundle=bundle, batch_size=0)
    with pytest.raises(ConfigError, match="training mode"):
        Encoder(bundle=dataclasses.replace(bundle, model=bundle.model.train()))
