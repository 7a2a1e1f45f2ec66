"""Progress bars on stderr: of indexing, where that takes long, and of training.

What this room leaves out: whether one is wanted (`cli`), and log lines above it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

__all__ = ["indexing_bar", "training_bar"]

# Indexing that is done by then shows no bar.
_SECONDS = 2.0


@contextlib.contextmanager
def indexing_bar(wanted: bool) -> Iterator[Callable[[int, int], None]]:
    """What takes how many files are indexed, and of how many."""
    from tqdm import tqdm

    with tqdm(
        unit=" shards", desc="indexing", delay=_SECONDS, disable=not wanted, dynamic_ncols=True, leave=False
    ) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


@contextlib.contextmanager
def training_bar(total: int, seen: int, wanted: bool) -> Iterator[Callable[[int, float], None]]:
    """What takes a number of samples and the loss; `seen` of `total` samples are done."""
    from tqdm import tqdm

    with tqdm(
        total=total, initial=seen, unit=" samples", unit_scale=True, disable=not wanted, dynamic_ncols=True
    ) as bar:

        def show(samples: int, loss: float) -> None:
            bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            bar.update(samples)

        yield show
