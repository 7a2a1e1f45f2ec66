"""The fixed inputs, and what a model makes of them."""

from __future__ import annotations

import torch

import clip_core
from clip_hub.probe import TEXTS, fixed_pictures, run_probe


def test_pictures_are_made_of_integers_and_differ() -> None:
    pictures = fixed_pictures(48, 32)
    assert [tuple(picture.shape) for picture in pictures] == [(3, 48, 32)] * len(TEXTS)
    # The value of a pixel by hand: row 7 of 48, column 5 of 32, green, the third picture.
    assert int(pictures[2][1, 7, 5]) == (7 * 255 // 48 * 2 + 5 * 255 // 32 * 3) % 256
    assert len({picture.numpy().tobytes() for picture in pictures}) == len(TEXTS)


@torch.no_grad()
def test_the_probe_is_the_models_features_with_its_own_preprocessing() -> None:
    torch.manual_seed(0)
    bundle = clip_core.create("tiny")
    found = run_probe(bundle)
    preprocess = bundle.config.preprocess
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocess.mean, preprocess.std))
    pixels = torch.stack([(picture / 255 - mean) / std for picture in fixed_pictures(32, 32)])
    torch.testing.assert_close(found.image, bundle.model.encode_image(pixels), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.text, bundle.model.encode_text(bundle.tokenizer(list(TEXTS))), atol=1e-5, rtol=0)
    image, text = (bundle.model.encode_image(pixels)[0], found.text[0])
    expected = [*(image / image.norm())[:4].tolist(), *(text / text.norm())[:4].tolist()]
    assert all(abs(ours - theirs) < 1e-4 for ours, theirs in zip(found.fingerprint(), expected, strict=True))


def test_without_a_vocabulary_the_pictures_alone_are_looked_at() -> None:
    from clip_core import Bundle
    from clip_core.config import HfTokenizerConfig
    from clip_core.tokenizer import MissingTokenizer

    bundle = clip_core.create("tiny")
    tokenizer = HfTokenizerConfig(context_length=32, source="org/name", clean="none", pad_id=0)
    blind = Bundle(
        model=bundle.model, preprocess=bundle.preprocess, tokenizer=MissingTokenizer(tokenizer), config=bundle.config
    )
    found = run_probe(blind)
    assert found.text is None
    assert len(found.fingerprint()) == 4
