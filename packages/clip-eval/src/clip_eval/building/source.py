"""What a data set is made of, before it is written: its kind, its names, and its examples one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from clip_eval.building.pictures import Example
from clip_eval.wds import Association, Kind

__all__ = ["Source"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Handed to `write_dataset`."""

    kind: Kind
    examples: Iterable[Example]
    """Read once, one at a time."""
    classnames: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    metadata_fields: tuple[str, ...] = ()
    associations: tuple[Association, ...] = ()
    """Their numbers are places in `examples`."""
    count: int | None = None
    """How many examples there are, where that is known: for the progress bar."""
