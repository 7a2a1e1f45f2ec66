"""Where the right answers stand among all answers, with ties counted instead of resolved by accident.

Similarities are exact: features are rounded to multiples of 2**-26, the grain that float32 has near 1/4, so that every
product is a multiple of 2**-52 and a float64 sum of them, which stays below 2, is never rounded. Equal features tie
wherever they stand, different ones do not, and neither block sizes nor libraries nor processes change a bit.

Shapes: Q queries, G gallery entries, P pairs, D features. A query may have several right answers; it is answered by
the best of them. Every metric of this package is a function of the three counts in `Ranks`. What is not here: means,
intervals.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clip_core.errors import DataError

__all__ = ["Hits", "Ranks", "on_grid", "pair_similarities", "rank_rows", "similarities"]

_GRID = 2.0**26


def on_grid(features: Tensor) -> Tensor:
    """Float32 features of length 1, rounded to multiples of 2**-26: at most sqrt(D) * 2**-27 away."""
    return (features * _GRID).round() / _GRID


def similarities(queries: Tensor, gallery: Tensor) -> Tensor:
    """Cosine similarities, float64 (Q, G), of normalised float32 features (Q, D) and (G, D).

    Exact as the module says; features that are not normalised are summed in float64 like any other numbers.
    """
    return on_grid(queries).double() @ on_grid(gallery).double().T


def pair_similarities(queries: Tensor, rows: Tensor, gallery: Tensor, columns: Tensor, *, chunk: int = 16384) -> Tensor:
    """`similarities(queries, gallery)[rows, columns]`, float64 (P,), bit for bit and without the matrix."""
    parts = [
        (on_grid(queries[row]).double() * on_grid(gallery[column]).double()).sum(dim=1)
        for row, column in zip(torch.split(rows, chunk), torch.split(columns, chunk), strict=True)
    ]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)


@dataclass(frozen=True, slots=True)
class Hits:
    """Per query, float64 (Q,): the chance of a hit within the first k, and its bounds."""

    expected: Tensor
    optimistic: Tensor
    pessimistic: Tensor


@dataclass(frozen=True, slots=True)
class Ranks:
    """Per query, int64 (Q,): what stands before and beside its best right answer."""

    greater: Tensor
    """Wrong answers that score strictly higher."""
    equal: Tensor
    """Wrong answers that score the same."""
    right: Tensor
    """Right answers that score the same, itself included; at least 1."""

    @staticmethod
    def join(parts: list[Ranks]) -> Ranks:
        """The queries of all parts in their order."""
        return Ranks(
            torch.cat([part.greater for part in parts]),
            torch.cat([part.equal for part in parts]),
            torch.cat([part.right for part in parts]),
        )

    def hits(self, k: int) -> Hits:
        """Whether a right answer is among the first `k`; a tied group stands in random order."""
        room = k - self.greater
        places = room.clamp(min=0).double()
        # The chance that a lot which fills `places` of the tied group finds none of the right answers.
        miss = torch.ones(len(self.greater), dtype=torch.float64)
        for one in range(1, max(self.right.tolist(), default=0) + 1):
            factor = (self.equal - places + one).clamp(min=0) / (self.equal + one)
            miss = torch.where(one <= self.right, miss * factor, miss)
        return Hits(1 - miss, (room > 0).double(), (room > self.equal).double())

    def positions(self) -> Hits:
        """Rank of the best right answer, from 1; `expected` is its mean over random orders of the tied group."""
        first = (self.greater + 1).double()
        return Hits(first + self.equal / (self.right + 1), first, first + self.equal)

    def tie_share(self) -> float:
        """Share of queries whose best right answer ties with a wrong one."""
        return float((self.equal > 0).double().mean())


def rank_rows(scores: Tensor, rows: Tensor, columns: Tensor) -> Ranks:
    """Ranks from scores (Q, G); the pairs `rows[i]`, `columns[i]` are the right answers, every row has at least one.

    Raises `DataError` for a score that is NaN: no comparison with it holds, so it would look like a perfect rank.
    """
    bad = int(scores.isnan().any(dim=1).sum())
    if bad:
        raise DataError(f"{bad} of {len(scores)} queries have a score that is NaN. Check the features and the weights.")
    right_scores = scores[rows, columns]
    best = torch.full((len(scores),), -torch.inf, dtype=scores.dtype)
    best = best.scatter_reduce(0, rows, right_scores, "amax")
    greater = (scores > best[:, None]).sum(dim=1)
    equal = (scores == best[:, None]).sum(dim=1)
    right = torch.zeros(len(scores), dtype=torch.int64).index_add_(0, rows, (right_scores == best[rows]).long())
    return Ranks(greater, equal - right, right)
