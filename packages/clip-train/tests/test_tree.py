from __future__ import annotations

import json
import math
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from clip_train.checkpoint.tree import Unpackable, pack, unpack

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([torch.float16, torch.bfloat16, torch.int8])
    | st.integers(0, 9).map(lambda n: torch.full((2, n), n / 7))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
)


def same(left: Any, right: Any) -> bool:
    if type(left) is not type(right):
        return False
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right or (isinstance(left, float) and math.isnan(left) and math.isnan(right))


@given(VALUES)
@settings(max_examples=200, deadline=None)
def test_what_goes_in_comes_out(value: Any) -> None:
    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(pack(value, tensors), allow_nan=False)
    assert same(unpack(json.loads(text), tensors), value)


def test_what_optimisers_keep_comes_back() -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), fused=True)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(pack(optimizer.state_dict(), tensors), allow_nan=False)
    assert set(tensors) == {f"state.{n}.{key}" for n in (0, 1) for key in ("step", "exp_avg", "exp_avg_sq")}
    assert same(unpack(json.loads(text), tensors), optimizer.state_dict())


def test_names_with_dots_do_not_meet() -> None:
    value = {"a": {"b": torch.zeros(1)}, "a.b": torch.ones(1)}
    tensors: dict[str, torch.Tensor] = {}
    assert same(unpack(pack(value, tensors), tensors), value)


def test_long_lists_of_numbers_are_tensors_and_sets_are_sets() -> None:
    tensors: dict[str, torch.Tensor] = {}
    value = {"truncated": list(range(1000)), "short": [1, 2], "seen": {3, 1}}
    body = pack(value, tensors)
    assert tensors["truncated"].dtype == torch.int64
    assert len(json.dumps(body)) < 200
    assert unpack(body, tensors) == value


@pytest.mark.parametrize(
    ("value", "place"),
    [({"a": [object()]}, "a.0 is a object"), ({"a": {(1, 2): 3}}, "a has keys"), ({"d": b"x"}, "d is")],
)
def test_what_cannot_be_held_is_named(value: Any, place: str) -> None:
    with pytest.raises(Unpackable, match=place):
        pack(value, {})
