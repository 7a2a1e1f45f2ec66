from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_core.errors import ConfigError
from clip_train.data.filters import Filter

SAMPLE = {
    "similarity": 0.32, "punsafe": 0.02, "NSFW": "UNLIKELY", "language": "en", "width": 512, "height": 256,
    "exif": {"iso": 100}, "a.b": 3, "flag": True, "nothing": None, "nan": float("nan"), "tags": ["cat", "dog"],
}  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "similarity > 0.3 and punsafe < 0.1 and language == 'en'",
        "NSFW in ['UNLIKELY', 'UNSURE']",
        "NSFW not in ('NSFW',)",
        "0.3 < similarity <= 0.32",
        "width * height >= 1e5 and width / height < 3 and min(width, height) >= 256",
        "exif.iso == 100 and a.b == 3",
        "flag and not (width < 10 or language == 'de')",
        "flag == true",
        "nothing is None and gone is none and width is not None",
        "'cat' in tags and 'LIKE' in NSFW and lower(NSFW) == 'unlikely'",
        "gone > 1 or width > 1",
        "len(language) == 2 and abs(-width) == 512",
    ],
)
def test_what_is_met(text: str) -> None:
    assert Filter(text).reason(SAMPLE) == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("similarity > 0.3 and punsafe < 0.01", "punsafe < 0.01"),
        ("language != 'en'", "language != 'en'"),
        # What is not known is not trained on, whichever way the question is put.
        ("gone > 1", "gone is missing"),
        ("not gone > 1", "gone is missing"),
        ("gone != 1", "gone is missing"),
        ("nothing < 5", "nothing is missing"),
        ("nan < 5", "nan is missing"),
        ("not nan < 5", "nan is missing"),
        ("exif.gone == 1", "exif.gone is missing"),
        ("width.x == 1", "width.x is missing"),
        ("language > 3", "language and 3 are of different kinds"),
        ("flag == 1", "flag and 1 are of different kinds"),
        ("width / 0 > 1", "width / 0 cannot be computed"),
        ("language * 3 == 'x'", "language is no number"),
        ("width", "width is not true or false"),
        ("len(width) > 1", "len(width) cannot be computed"),
        # What is not met is named before what is not known.
        ("gone > 1 and width < 1", "width < 1"),
        ("gone > 1 or width < 1", "gone is missing"),
    ],
)
def test_why_a_sample_is_left_out(text: str, reason: str) -> None:
    assert Filter(text).reason(SAMPLE) == reason


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "open('x')",
        "similarity.__class__() > 1",
        "(lambda: similarity)() > 1",
        "[x for x in tags]",
        "similarity if flag else 1",
        "tags[0] == 'cat'",
        "f'{similarity}' == 'x'",
        "(x := 3) > similarity",
        "similarity ** 99 > 1",
        "min(*tags) > 1",
        "max(tags, key=len) == 1",
        "similarity is 3",
        "similarity >",
        "1 < 2",
        "",
        "similarity > 1; import os",
        "'a'.upper() == language",
        "b'x' == language",
        "similarity > 1j",
        "(" * 300 + "similarity" + ")" * 300 + " > 1",
    ],
)
def test_what_is_not_allowed_is_an_error_when_it_is_read(text: str) -> None:
    with pytest.raises(ConfigError, match="--filter"):
        Filter(text)


def test_only_expressions_reach_their_fields_by_name() -> None:
    # A name with underscores is a field like any other: it is looked up in the json member and nowhere else.
    assert Filter("width.__class__ == 1").reason(SAMPLE) == "width.__class__ is missing"
    assert Filter("exif.iso > 1 and width > 1").fields == ("exif.iso", "width")


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda x: st.lists(x, max_size=2) | st.dictionaries(st.sampled_from("abc"), x, max_size=2),
    )
)
def test_no_value_of_a_field_makes_it_fail(value: Any) -> None:
    for text in ("a < 3", "a == 'x'", "a in [1, 2]", "'x' in a", "a + 1 > 2", "len(a) > 1", "not a", "a.b > 1",
                 "min(a, 3) > 1", "lower(a) == 'x'", "abs(a) > 1", "a > a", "a is None"):  # fmt: skip
        assert isinstance(Filter(text).reason({"a": value}), str)


def test_a_filter_pickles() -> None:
    made = Filter("similarity   >  0.3")
    assert pickle.loads(pickle.dumps(made)).reason(SAMPLE) == ""
    assert made.text == "similarity > 0.3"
