"""What decides a feature is in its key; what pads or transforms in another way than the model expects is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from clip_core import Bundle
from clip_core.config import PreprocessConfig
from clip_core.errors import ConfigError
from clip_core.preprocess import build_transform
from clip_core.tokenizer import TokenBatch
from clip_eval.encoder import Encoder
from clip_eval.fingerprints import (
    image_key,
    text_key,
    tokenizer_fingerprint,
    transform_fingerprint,
    weights_checksum,
)


class Padding:
    """The model's tokenizer with other rows."""

    def __init__(self, bundle: Bundle, width: int, value: int) -> None:
        self.inner, self.context_length, self.vocab_size = bundle.tokenizer, width, bundle.tokenizer.vocab_size
        self.value = value

    def __call__(self, texts, context_length=None, truncate=True):
        return self.tokenize(texts).tokens

    def tokenize(self, texts, context_length=None):
        tokens, lengths = self.inner.tokenize(texts)
        tokens = F.pad(tokens, (0, max(0, self.context_length - tokens.shape[1])))[:, : self.context_length]
        places = torch.arange(tokens.shape[1]) >= lengths[:, None]
        return TokenBatch(torch.where(places, self.value, tokens), lengths)


@pytest.mark.parametrize(
    ("width", "value", "message"),
    [(64, 0, r"\(1, 64\) for one text, and the model was made for \(1, 32\)"), (32, 7, "pads rows with the id 7")],
)
def test_a_tokenizer_that_pads_otherwise_is_refused(bundle, width, value, message) -> None:
    encoder = Encoder(bundle=dataclasses.replace(bundle, tokenizer=Padding(bundle, width, value)))
    with pytest.raises(ConfigError, match=message):
        encoder.texts(["a cat"])


def test_a_tokenizer_that_pads_to_the_longest_text_is_refused(bundle) -> None:
    class Longest(Padding):
        def tokenize(self, texts, context_length=None):
            tokens, lengths = self.inner.tokenize(texts)
            return TokenBatch(tokens[:, : int(lengths.max())], lengths)

    with pytest.raises(ConfigError, match=r"\(1, 3\) for one text"):
        Encoder(bundle=dataclasses.replace(bundle, tokenizer=Longest(bundle, 32, 0))).texts(["a cat"])


def test_a_tokenizer_that_makes_other_ids_has_another_fingerprint(bundle) -> None:
    class Canonical(Padding):
        def tokenize(self, texts, context_length=None):
            texts = [texts] if isinstance(texts, str) else texts
            return super().tokenize([text.replace("!", "") for text in texts])

    same = dataclasses.replace(bundle, tokenizer=Padding(bundle, 32, 0))
    other = dataclasses.replace(bundle, tokenizer=Canonical(bundle, 32, 0))
    assert tokenizer_fingerprint(same) == tokenizer_fingerprint(bundle)
    assert tokenizer_fingerprint(other) != tokenizer_fingerprint(bundle)


@pytest.mark.parametrize(
    "change",
    [{"interpolation": "bilinear"}, {"resize_mode": "squash"}, {"mean": (0.5, 0.5, 0.5)}, {"std": (0.5, 0.5, 0.5)}],
)
def test_a_transform_that_differs_in_anything_has_another_fingerprint(bundle, change) -> None:
    config: PreprocessConfig = dataclasses.replace(bundle.config.preprocess, **change)
    assert config != bundle.config.preprocess
    other = dataclasses.replace(bundle, preprocess=build_transform(config))
    assert transform_fingerprint(other) != transform_fingerprint(bundle)


def test_a_transform_for_training_is_refused(bundle) -> None:
    random = dataclasses.replace(bundle, preprocess=build_transform(bundle.config.preprocess, train=True))
    with pytest.raises(ConfigError, match="one for training"):
        image_key(random, "fp32")


def test_keys_are_the_same_for_the_same_model_and_apart_for_images_and_texts(bundle) -> None:
    again = Bundle.of(bundle.model)
    assert image_key(bundle, "fp32") == image_key(again, "fp32")
    assert text_key(bundle, "fp32") == text_key(again, "fp32")
    assert image_key(bundle, "fp32").sha256 != text_key(bundle, "fp32").sha256


def test_a_checksum_sees_any_weight(bundle) -> None:
    before = weights_checksum(bundle.model)
    assert weights_checksum(bundle.model) == before
    with torch.no_grad():
        bundle.model.positional_embedding[3, 3] += 1e-3
    assert weights_checksum(bundle.model) != before
