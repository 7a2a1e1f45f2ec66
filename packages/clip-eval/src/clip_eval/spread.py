"""Which process encodes what: whole batches are dealt out in turn, and what comes back is in the order of the data.

A unit is what is stored as one file: a shard's images, a block of texts. Batches begin anew in each unit and do not
depend on the number of processes, so each is computed as one process would compute it, and the features are the same
to the last bit (on machines of one kind, with the same number of threads in each process). Units are gathered one by
one; only those that have fewer batches than there are processes are taken several at once, so that no process idles.

Shapes: n rows of a part, D features.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from clip_eval.processes import Ranks

__all__ = ["NAME", "Part", "cut", "encode_spread", "in_waves"]

NAME = "\N{OBJECT REPLACEMENT CHARACTER}"
"""Stands in a reason for the name of the item: a data set may lie elsewhere when its features are found again."""


@dataclass(frozen=True, slots=True)
class Part:
    """What became of some items."""

    features: Tensor
    """float32 (n, D), on the CPU."""
    places: Tensor
    """int64 (n,): which item each row belongs to, ascending."""
    left_out: dict[int, str] = field(default_factory=dict)
    """Why other items have no row, with `NAME` in the place of theirs."""


def cut(unit: range, size: int) -> list[range]:
    """The batches of a unit: of `size` items, the last one of what is left."""
    return [unit[start : start + size] for start in range(0, len(unit), size)]


def in_waves(counts: Sequence[int], least: int) -> list[range]:
    """Neighbours among units with so many batches each, taken together until they have `least` batches; the rest last.

    With one process, and with shards of an ordinary size, a wave is one unit.
    """
    waves, first, held = [], 0, 0
    for place, count in enumerate(counts):
        held += count
        if held >= least:
            waves.append(range(first, place + 1))
            first, held = place + 1, 0
    return waves if first == len(counts) else [*waves, range(first, len(counts))]


def encode_spread(
    units: Sequence[range],
    batch_size: int,
    width: int,
    encode: Callable[[Sequence[range]], Iterator[Part]],
    ranks: Ranks,
) -> Iterator[Part]:
    """The whole `Part` of each unit, in order, the same in every process.

    Args:
        units: the items of each.
        batch_size: items of a batch.
        width: the number of features D.
        encode: gets all batches that fall to this process, and gives the part of each when it is asked for.
        ranks: the processes.

    Raises:
        Exception: what `encode` raises in any of the processes.
    """
    batches = [cut(unit, batch_size) for unit in units]
    waves = in_waves([len(unit) for unit in batches], ranks.size)
    turns = [[batch for place in wave for batch in batches[place]] for wave in waves]
    mine: list[list[range]] = []
    dealt = 0
    for turn in turns:
        mine.append([batch for number, batch in enumerate(turn, dealt) if number % ranks.size == ranks.rank])
        dealt += len(turn)
    parts = encode([batch for own in mine for batch in own])

    def take(count: int) -> list[Part]:
        return [next(parts) for _ in range(count)]

    for wave, own in zip(waves, mine, strict=True):
        whole = _gather(ranks.together(partial(take, len(own))), width, ranks)
        for place in wave:
            yield _within(whole, units[place])


def _gather(parts: list[Part], width: int, ranks: Ranks) -> Part:
    features = torch.cat([torch.empty(0, width), *(part.features for part in parts)])
    places = torch.cat([torch.empty(0, dtype=torch.int64), *(part.places for part in parts)])
    left_out = json.dumps({place: reason for part in parts for place, reason in part.left_out.items()})
    features, places = torch.cat(ranks.gather(features)), torch.cat(ranks.gather(places))
    order = places.argsort()
    found = [json.loads(text) for text in ranks.gather_text(left_out)]
    reasons = {int(place): reason for part in found for place, reason in part.items()}
    return Part(features[order], places[order], dict(sorted(reasons.items())))


def _within(part: Part, unit: range) -> Part:
    """The items of one unit."""
    first, end = torch.searchsorted(part.places, torch.tensor([unit.start, unit.stop])).tolist()
    left_out = {place: reason for place, reason in part.left_out.items() if place in unit}
    return Part(part.features[first:end], part.places[first:end], left_out)
