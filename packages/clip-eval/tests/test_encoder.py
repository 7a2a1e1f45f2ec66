"""The encoder gives what clip-core gives, once per distinct text."""

from __future__ import annotations

import torch

from clip_core import Bundle
from clip_core.zero_shot import build_zero_shot_classifier
from clip_eval.encoder import Encoder

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
