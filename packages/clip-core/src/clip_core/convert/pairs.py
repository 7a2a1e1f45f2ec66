"""Tables of which tensor of ours is which of another library's, read in both directions.

A table is written out for one configuration, layer by layer, so that a tensor that is missing or left over is found
by name. Most tensors are the same under another name; the rest differ in one of the ways of `How`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor

from clip_core.errors import CheckpointMismatch, listed
from clip_core.mapping import MappedPages

__all__ = ["How", "Pair", "copies", "to_ours", "to_theirs", "with_patch_bias"]

How = Literal["same", "turned", "stacked", "split", "row", "grid", "vector"]
"""What ours is: theirs; theirs transposed; three of theirs below each other (query, key, value); two, the first and
the other two thirds of theirs (query, key and value); theirs with an axis of one in front; the same with its rows laid
out as a square; the scalar that theirs holds as a vector of one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """Tensors of ours, and those of theirs that they are made of."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    how: How = "same"


def copies(names: Mapping[str, str], ours: str, theirs: str, parts: Iterable[str] = ("weight", "bias")) -> list[Pair]:
    """Pairs that differ in name alone: `names` maps modules of ours to theirs, each with `parts`, under prefixes."""
    parts = tuple(parts)
    return [
        Pair((f"{ours}{mine}.{part}",), (f"{theirs}{other}.{part}",)) for mine, other in names.items() for part in parts
    ]


def to_ours(pairs: Iterable[Pair], tensors: Mapping[str, Tensor], source: object) -> dict[str, Tensor]:
    """`tensors` of theirs as ours.

    Raises:
        CheckpointMismatch: one is missing or left over; names `source` and it.
    """
    # Indices that older versions kept with the weights; a model makes them itself.
    left = {key: value for key, value in tensors.items() if not key.endswith("position_ids")}
    pairs = tuple(pairs)
    missing = [key for pair in pairs for key in pair.theirs if key not in left]
    unexpected = sorted(left.keys() - {key for pair in pairs for key in pair.theirs})
    if missing or unexpected:
        raise CheckpointMismatch(
            f"The weights in {source} are not those that its configuration states "
            f"(missing: {listed(missing) or 'none'}; unexpected: {listed(unexpected) or 'none'})."
        )
    found: dict[str, Tensor] = {}
    pages = MappedPages()
    for pair in pairs:
        values = [left[key] for key in pair.theirs]
        found.update(zip(pair.ours, _ours(pair.how, values), strict=True))
        if pair.how in ("stacked", "turned"):
            pages.release(*values)  # these were copied
    return found


def to_theirs(pairs: Iterable[Pair], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` of ours as theirs; every one of ours is in `pairs`."""
    pairs = tuple(pairs)
    named = {key for pair in pairs for key in pair.ours}
    assert named == tensors.keys(), named ^ tensors.keys()
    found: dict[str, Tensor] = {}
    for pair in pairs:
        found.update(zip(pair.theirs, _theirs(pair.how, [tensors[key] for key in pair.ours]), strict=True))
    return found


def with_patch_bias(positions: Tensor, bias: Tensor) -> Tensor:
    """Positions (1 + N, W) with the bias (W,) of a patch embedding, which our towers do not have, in those of the N
    patches: it is added to the same sum.
    """
    return positions + torch.cat([torch.zeros_like(bias)[None], bias.expand(len(positions) - 1, -1)])


def _ours(how: How, values: list[Tensor]) -> list[Tensor]:
    value = values[0]
    if how == "stacked":
        return [torch.cat(values)]
    if how == "split":
        third = len(value) // 3
        return [value[:third], value[third:]]
    if how == "turned":
        return [value.T.contiguous()]
    if how == "row":
        return [value[None]]
    if how == "grid":
        side = math.isqrt(len(value))
        return [value.view(1, side, side, -1)]
    return [value.reshape(()) if how == "vector" else value]


def _theirs(how: How, values: list[Tensor]) -> list[Tensor]:
    value = values[0]
    if how == "stacked":
        return list(value.chunk(3))
    if how == "split":
        return [torch.cat(values)]
    if how == "turned":
        return [value.T]
    if how == "row":
        return [value[0]]
    if how == "grid":
        return [value.flatten(0, 2)]
    return [value.reshape(1) if how == "vector" else value]
