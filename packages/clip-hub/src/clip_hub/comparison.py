"""How two checkpoints differ: what they state, which tensors they have, the values, and what comes out of them.

Weights are read side by side, a piece at a time, and compared in float64. What this room leaves out: which of the two
is better.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clip_core import Bundle, ClipConfig, ConfigError
from clip_core.building import build
from clip_core.convert.checkpoint import differences
from clip_core.mapping import MappedPages
from clip_hub.probe import Probe, run_probe
from clip_hub.sources import Source, open_source
from clip_hub.tensor_file import PIECE

__all__ = ["Difference", "TensorDifference", "compare"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TensorDifference:
    """How a tensor of the second differs from the one of the same name and shape in the first."""

    name: str
    largest: float
    """max |first - second|; NaN where only one of them is not a number."""
    relative: float
    """`largest` by the largest magnitude in the first."""
    dtypes: tuple[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """How the second checkpoint differs from the first."""

    config: dict[str, tuple[Any, Any]]
    """Fields that change features: dotted name -> (first, second)."""
    other_fields: dict[str, tuple[Any, Any]]
    """Fields that say how a model is trained, begins, or is written down."""
    missing: tuple[str, ...]
    """Tensors that only the first has."""
    added: tuple[str, ...]
    """Tensors that only the second has."""
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    changed: tuple[TensorDifference, ...]
    """Those with another value or dtype, the largest relative difference first."""
    compared: int
    """How many tensors have the same name and shape."""
    cosine: float
    """Of all weights that both have, laid out as one vector each."""
    image_cosine: float | None
    """The smallest of the four fixed pictures' features; None where not run, or of another width."""
    text_cosine: float | None

    @property
    def same(self) -> bool:
        """Whether both are one model with one set of weights; dtypes and `other_fields` may differ."""
        values = any(entry.largest != 0 for entry in self.changed)
        return not (self.config or self.missing or self.added or self.shapes or values)

    def to_json(self) -> dict[str, Any]:
        """This difference as plain values."""
        return {"same": self.same, **dataclasses.asdict(self)}


def compare(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    *,
    features: bool = True,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> Difference:
    """How the checkpoint `second` differs from `first`; both are anything that `sources.open_source` takes.

    Args:
        first, second: they may be of different layouts and dtypes, and of different models.
        features: also run both on fixed pictures and texts, each with its own preprocessing, in float32 on the CPU.
        cache_dir, token: as `clip_hub.load`.

    Raises:
        ConfigError, UnknownModel, CheckpointMismatch, DownloadError: one of them cannot be opened.
    """
    pair = [open_source(name, cache_dir=cache_dir, token=token) for name in (first, second)]
    ours = pair[0].tensors()
    theirs = pair[1].tensors(_laid_out_as(pair[1].config, pair[0].config))
    matter = differences(pair[0].config, pair[1].config)
    common = [key for key, value in ours.items() if key in theirs and theirs[key].shape == value.shape]
    changed, cosine = _values(ours, theirs, common)
    shapes = {
        key: (tuple(value.shape), tuple(theirs[key].shape))
        for key, value in ours.items()
        if key in theirs and theirs[key].shape != value.shape
    }
    missing, added = tuple(key for key in ours if key not in theirs), tuple(key for key in theirs if key not in ours)
    del ours, theirs
    image = text = None
    if features and pair[0].config.embed_dim == pair[1].config.embed_dim:
        probes = [_probe(source) for source in pair]
        image, text = (_cosine(getattr(probes[0], kind), getattr(probes[1], kind)) for kind in ("image", "text"))
    return Difference(
        config=matter,
        other_fields={key: value for key, value in _all_fields(pair).items() if key not in matter},
        missing=missing,
        added=added,
        shapes=shapes,
        changed=changed,
        compared=len(common),
        cosine=cosine,
        image_cosine=image,
        text_cosine=text,
    )


def _laid_out_as(config: ClipConfig, other: ClipConfig) -> ClipConfig:
    """`config` with the names of `other`, where its model can have them."""
    try:
        return dataclasses.replace(config, layout=other.layout)
    except ConfigError:
        return config


def _values(
    ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], names: list[str]
) -> tuple[tuple[TensorDifference, ...], float]:
    pages = MappedPages()
    changed: list[TensorDifference] = []
    product = squares = other_squares = 0.0
    for name in names:
        first, second = ours[name].reshape(-1), theirs[name].reshape(-1)
        largest = magnitude = 0.0
        for start in range(0, first.numel(), PIECE):
            parts = first[start : start + PIECE], second[start : start + PIECE]
            a, b = (part.double() for part in parts)
            # What is infinite or NaN in both, alike, is no difference.
            apart = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, a - b).abs()
            largest = _larger(largest, float(apart.max()))
            magnitude = _larger(magnitude, float(a.abs().max()))
            product, squares, other_squares = (
                product + float(a @ b),
                squares + float(a @ a),
                other_squares + float(b @ b),
            )
            pages.release(*parts)
        dtypes = (_short(first), _short(second))
        if largest != 0 or dtypes[0] != dtypes[1]:
            relative = largest / magnitude if magnitude else math.inf if largest else 0.0
            changed.append(TensorDifference(name=name, largest=largest, relative=relative, dtypes=dtypes))
    # NaN is not to be ordered; it goes first.
    changed.sort(key=lambda entry: -math.inf if math.isnan(entry.relative) else -entry.relative)
    lengths = math.sqrt(squares) * math.sqrt(other_squares)
    return tuple(changed), product / lengths if lengths else math.nan


def _larger(first: float, second: float) -> float:
    return math.nan if math.isnan(first) or math.isnan(second) else max(first, second)


def _short(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _probe(source: Source) -> Probe:
    return run_probe(Bundle.of(build(source.config, source.checkpoint), source.vocabulary))


def _cosine(first: Tensor | None, second: Tensor | None) -> float | None:
    if first is None or second is None:
        return None
    return float(torch.nn.functional.cosine_similarity(first.double(), second.double(), dim=-1).min())


def _all_fields(pair: list[Source]) -> dict[str, tuple[Any, Any]]:
    first, second = (_flat(source.config.to_json()) for source in pair)
    keys = {**first, **second}
    return {key: (first.get(key), second.get(key)) for key in keys if first.get(key) != second.get(key)}


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}{key}.").items()}
    return {prefix.rstrip("."): value}
