"""Nested values as strict JSON beside tensors, and back, without loss: what `state_dict` gives, without pickle.

Tensors are set aside under the path that leads to them ("state.12.exp_avg"). In JSON every object has one key that says
what it is, so a tuple comes back as a tuple and a dict with whole numbers for keys as one. Long lists of whole numbers
become tensors too. What this room leaves out: files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["Unpackable", "pack", "unpack"]

_LONG = 100
_INT64 = range(-(1 << 63), 1 << 63)


class Unpackable(TypeError):
    """A value of a kind that JSON and tensors cannot hold; names its place."""


def pack(value: Any, tensors: dict[str, Tensor], place: str = "") -> Any:
    """`value` as JSON; its tensors go into `tensors`. Raises `Unpackable`."""
    if value is None or (isinstance(value, bool | int | str) and type(value) in (bool, int, str)):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, Tensor):
        if place in tensors:  # "a.b" as a key beside b in a
            place += "~"
        tensors[place] = value.detach()
        return {"tensor": place}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, Mapping):
        if not all(type(key) in (str, int) for key in value):
            raise Unpackable(f"{place or 'the state'} has keys that are neither names nor whole numbers")
        return {"dict": [[key, pack(item, tensors, _join(place, key))] for key, item in value.items()]}
    if type(value) is list and len(value) > _LONG and all(type(item) is int and item in _INT64 for item in value):
        tensors[place] = torch.tensor(value, dtype=torch.int64)
        return {"ints": place}
    if type(value) in (list, tuple, set):
        items = sorted(value) if type(value) is set else value
        return {type(value).__name__: [pack(item, tensors, _join(place, n)) for n, item in enumerate(items)]}
    raise Unpackable(f"{place or 'the state'} is a {type(value).__name__}")


def unpack(body: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `pack` was given."""
    if not isinstance(body, dict):
        return body
    ((kind, held),) = body.items()
    if kind == "tensor":
        return tensors[held]
    if kind == "ints":
        return tensors[held].tolist()
    if kind == "float":
        return float(held)
    if kind == "dtype":
        return getattr(torch, held)
    if kind == "dict":
        return {key: unpack(item, tensors) for key, item in held}
    return {"list": list, "tuple": tuple, "set": set}[kind](unpack(item, tensors) for item in held)


def _join(place: str, key: object) -> str:
    return f"{place}.{key}" if place else str(key)
