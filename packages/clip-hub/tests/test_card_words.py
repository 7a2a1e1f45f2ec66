"""Codes in words, and codes without one as they are."""

from __future__ import annotations

import dataclasses

import pytest

from clip_core import get_config
from clip_hub.card.words import image_words, language_words, licence_words, listing


def test_languages_and_lists_read_as_sentences() -> None:
    assert language_words(["en"]) == "English"
    assert language_words(["en", "it", "xx"]) == "English, Italian and `xx`"
    assert listing([]) == ""


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("mit", "MIT License (`mit`)"),
        ("cc-by-nc-sa-4.0", "Creative Commons Attribution-NonCommercial-ShareAlike 4.0 (`cc-by-nc-sa-4.0`)"),
        ("cc0-1.0", "Creative Commons Zero 1.0 (`cc0-1.0`)"),
        ("ecl-2.0", "`ecl-2.0`"),
    ],
)
def test_licences_have_a_name_and_their_code(code: str, words: str) -> None:
    assert licence_words(code) == words


def test_each_way_to_resize_is_said() -> None:
    preprocess = get_config("ViT-B-32").preprocess
    assert (
        image_words(preprocess)
        == "resized until they cover 224 x 224 pixels, then cut to the centre; bicubic interpolation"
    )
    for mode, words in (("squash", "whatever their shape"), ("longest", "the rest filled with grey value 0")):
        assert words in image_words(dataclasses.replace(preprocess, resize_mode=mode))
