"""Keyword arguments of `clip_core.creation`; how it finds folders and files is tested in test_bundle.py."""

from __future__ import annotations

import clip_core


def test_a_tokenizer_may_have_another_context_than_its_model() -> None:
    assert clip_core.get_tokenizer("ViT-B-32", context_length=16)("a dog").shape == (1, 16)
    assert clip_core.get_tokenizer("ViT-B-32")("a dog").shape == (1, 77)
