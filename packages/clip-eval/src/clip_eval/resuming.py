"""Features of units, from the store where it has them and else from the model, in any number of processes.

Process 0 alone reads and writes the store and hands on what it finds, so the others need not see its disk. Each unit
is kept as soon as it is whole. What is not here: keys (`fingerprints`), files (`store`), batches (`passes`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from clip_eval.fingerprints import FeatureKey
from clip_eval.passes import Clock
from clip_eval.processes import Ranks
from clip_eval.spread import Part, encode_spread
from clip_eval.store import FeatureStore, Kind, Stored

__all__ = ["Gathered", "Shelf", "encode_units"]


@dataclass(frozen=True, slots=True)
class Shelf:
    """The place of one model's features in a store."""

    store: FeatureStore
    kind: Kind
    key: FeatureKey
    ranks: Ranks

    def find(self, name: str, unit: range, width: int) -> tuple[Part, dict[str, Any]] | None:
        """What is kept of a unit, the same in every process, and what it was made with."""

        def look() -> Stored | None:
            return self.store.find(self.kind, self.key, name, len(unit)) if self.ranks.first else None

        stored = self.ranks.together(look)
        about = None if stored is None else [stored.left_out, stored.made_with]
        told = json.loads(self.ranks.text_from_first(json.dumps(about)))
        if told is None:
            return None
        empty = self.store.to_stored(torch.empty(0, width)), torch.empty(0, dtype=torch.int64)
        features, places = empty if stored is None else (stored.features, stored.places)
        left_out = {int(place) + unit.start: why for place, why in told[0].items()}
        features = self.store.from_stored(self.ranks.from_first(features))
        return Part(features, self.ranks.from_first(places) + unit.start, left_out), told[1]

    def keep(self, name: str, unit: range, part: Part, made_with: dict[str, Any]) -> Part:
        """Keep a unit; gives it as `find` will give it."""
        features = self.store.to_stored(part.features)
        if self.ranks.first:
            left_out = {place - unit.start: why for place, why in part.left_out.items()}
            self.store.save(self.kind, self.key, name, Stored(features, part.places - unit.start, left_out, made_with))
        return Part(self.store.from_stored(features), part.places, part.left_out)


@dataclass(slots=True)
class Gathered:
    """What became of all units."""

    parts: list[Part]
    found: int = 0
    """Items that were in the store."""
    made_with: list[dict[str, Any]] = field(default_factory=list)
    """Each different way in which they were made."""


def encode_units(
    units: Sequence[range],
    names: Sequence[str],
    shelf: Shelf | None,
    encode: Callable[[Sequence[range]], Iterator[Part]],
    ranks: Ranks,
    *,
    batch_size: int,
    width: int,
    made_with: dict[str, Any],
    clock: Clock,
    show: Callable[[int], None],
    check: Callable[[int], None] = lambda place: None,
) -> Gathered:
    """The part of each unit, in order, the same in every process.

    Args:
        units: the items of each.
        names: of their files; not looked at without a shelf.
        shelf: where to look first and to keep what is made.
        encode: as in `encode_spread`.
        ranks: the processes.
        batch_size: items of a batch.
        width: the number of features D.
        made_with: what to note beside features that are made here.
        clock: counts the seconds at the shelf.
        show: is told how many items were found or came from other processes.
        check: is called with the place of a unit before it is kept, and may raise.
    """
    whole: list[Part | None] = [None] * len(units)
    outcome = Gathered([])
    if shelf is not None:
        for place, unit in enumerate(units):
            with clock.count("store"):
                found = shelf.find(names[place], unit, width)
            if found is not None:
                whole[place], maker = found
                outcome.found += len(unit)
                show(len(unit))
                if maker not in outcome.made_with:
                    outcome.made_with.append(maker)
    missing = [place for place, part in enumerate(whole) if part is None]
    if missing and made_with not in outcome.made_with:
        outcome.made_with.append(made_with)
    made = encode_spread([units[place] for place in missing], batch_size, width, encode, ranks)
    for place, part in zip(missing, made, strict=True):
        if shelf is not None:
            with clock.count("store"):
                ranks.together(partial(check, place))
                part = shelf.keep(names[place], units[place], part, made_with)
        whole[place] = part
    outcome.parts = [part for part in whole if part is not None]
    return outcome
