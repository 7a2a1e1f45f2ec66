"""Features of a data set: what the tasks are given, what was left out and why, and the checks that both rest on.

A picture that does not decode is left out, counted and named; a feature that is not a number is an error, because it
would rank like one. What is not here: making features (`encoder`) and keeping them (`store`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from clip_core import Bundle
from clip_core.errors import DataError

__all__ = ["Excluded", "ImageFeatures", "check_finite", "count_truncated"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Excluded:
    """A sample that took no part, and why."""

    index: int
    """Its place in the data set."""
    name: str
    """`shard.tar:key.png`."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFeatures:
    """Features of the samples that could be decoded, in the order of the data set."""

    features: Tensor
    """float32 (N, D), rows of length 1, on the CPU."""
    kept: Tensor
    """int64 (N,): the place of each row's sample in the data set."""
    excluded: tuple[Excluded, ...]
    seconds_decode: float
    """Wall-clock seconds in which the model waited for images."""
    seconds_encode: float
    """Wall-clock seconds in the model."""
    seconds_store: float = 0.0
    """Wall-clock seconds in which features were looked up and kept."""
    found: int = 0
    """How many of the samples an earlier run had dealt with."""
    made_with: tuple[dict[str, Any], ...] = ()
    """On which devices, in what batches and with which versions the features were made: one entry, or several where
    runs went on with each other's."""


def count_truncated(bundle: Bundle, texts: Sequence[str]) -> int:
    """How many of the texts are longer than the model's context, so that it sees their beginning only."""
    count = bundle.tokenizer.tokenize(texts).truncated
    if count:
        _log.warning(
            "%d of %d texts are cut to the context length %d", count, len(texts), bundle.tokenizer.context_length
        )
    return count


def check_finite(features: Tensor, names: Sequence[str], kind: str) -> None:
    """Raises `DataError`, naming the first bad row, when `features` (N, D) hold NaN or infinity."""
    bad = (~features.isfinite().all(dim=1)).nonzero().flatten()
    if len(bad):
        raise DataError(
            f"The model gives {len(bad)} of {len(names)} {kind}s in this batch features that are not finite; first "
            f"{names[int(bad[0])]!r}. Scores of such features mean nothing. Check the weights, or use fp32."
        )
