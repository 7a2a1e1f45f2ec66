from __future__ import annotations

import json
from collections import Counter

import pytest

from clip_core.errors import ConfigError
from clip_train.data.captions import Keys, choose, json_caption, parse_alternatives, weighted_order
from clip_train.keyed import mix


def test_alternatives_are_tried_in_their_order() -> None:
    assert parse_alternatives(" jpg; .PNG ;") == ("jpg", "PNG")
    assert choose(("webp", "PNG"), {"png": 1, "jpg": 2}) == "png"
    assert choose(("webp",), {"png": 1}) is None


def caption(fields: object, keys: str, weights: tuple[float, ...] | None = None, draw: int = 0) -> str:
    return json_caption(json.dumps(fields).encode(), Keys.of("jpg", "txt", keys, weights), draw).decode()


def test_the_first_field_that_holds_text_is_the_caption() -> None:
    fields = {"a": "  ", "b": 3, "c": {"d": " a dog "}, "c.e": "dotted"}
    assert caption(fields, "a;b;c.d") == "a dog"
    assert caption(fields, "c.e") == "dotted"
    assert caption(fields, "a;gone.x;b") == ""
    assert caption([1], "a") == ""
    assert json_caption(b"\xff{", Keys.of("jpg", "txt", "a", None), 0) == b""


def test_weights_decide_how_often_a_field_comes_first() -> None:
    fields = {"a": "A", "b": "B", "c": "C"}
    drawn = Counter(caption(fields, "a;b;c", (3.0, 1.0), mix(7, n)) for n in range(4000))
    assert drawn["C"] == 0  # weights that are not given are 0
    assert drawn["A"] / 4000 == pytest.approx(0.75, abs=0.03)
    # What has no weight is what is left when nothing else holds text.
    assert caption({"a": "", "b": " ", "c": "C"}, "a;b;c", (3.0, 1.0)) == "C"
    assert caption(fields, "a;b;c", (3.0, 1.0), 11) == caption(fields, "a;b;c", (3.0, 1.0), 11)


def test_a_drawn_order_has_every_field_once() -> None:
    for draw in range(200):
        order = weighted_order((0.5, 0.0, 2.0, 0.1, 0.0), mix(draw))
        assert sorted(order) == [0, 1, 2, 3, 4]
        assert order[-2:] == [1, 4]


def test_one_of_a_list_of_captions_is_drawn() -> None:
    found = Counter(caption({"a": ["x", "", "y", 3]}, "a", draw=mix(5, n)) for n in range(400))
    assert set(found) == {"x", "y"}
    assert min(found.values()) > 120


@pytest.mark.parametrize(
    ("fields", "weights", "said"),
    [(None, (1.0,), "needs --json-text-key"), ("a", (1.0, 2.0), "2 weights for 1"), ("a;b", (0.0,), "not all"),
     ("a;b", (1.0, -1.0), "not all"), ("a", (float("nan"),), "not all")],
)  # fmt: skip
def test_weights_that_fit_no_field_are_an_error(fields: str | None, weights: tuple[float, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Keys.of("jpg", "txt", fields, weights)
