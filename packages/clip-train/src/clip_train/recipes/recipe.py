"""What a recipe is: a published training procedure that gives a `TrainConfig`, with its source and what is not stated.

`@recipe(...)` makes one of a function that returns fields of the configuration. What this room leaves out: the
procedures themselves, which the rooms beside it hold, one per family.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from clip_core.errors import ConfigError
from clip_train.config import TrainConfig

__all__ = ["RECIPES", "Fields", "Recipe", "recipe"]

Fields = dict[str, Any]

# Fields that say which weights a run begins from.
_BEGINNINGS = ("pretrained", "pretrained_image_path", "resume")

RECIPES: dict[str, Recipe] = {}
"""Name -> recipe, in the order of their rooms."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A procedure; call it with data to get the configuration: `vit_h_14_laion2b(train_data="shards/{0..9}.tar")`."""

    name: str
    summary: str
    """One sentence: what is trained on what."""
    tags: tuple[str, ...]
    """Published weights that were trained so, as "model:tag"."""
    source: str
    """Where the procedure is published."""
    global_batch: int
    """Samples of one step, of all processes."""
    processes: int | None
    """Of the published run; None: not stated."""
    differs: str
    """What is not published, or cannot be stated as a configuration here; empty: nothing is known to differ."""
    begins_from: str
    """The weights that it trains on, which the user has to name; empty: random ones, or stated."""
    stated: Callable[[], Fields]
    """The published fields; a field that is not among them has clip-train's default."""

    def __call__(self, train_data: str, *, processes: int | None = None, **changes: Any) -> TrainConfig:
        """The run on `train_data` with `changes`, fields of any group by their own names.

        `processes` is how many will train together; see `fields`. Raises `ConfigError` where the global batch cannot be
        shared so, weights to begin from are missing, or a change is no field.
        """
        shared = processes is not None and not {"batch_size", "accum_freq"} & set(changes)
        fields = {**self.fields(processes if shared else None), **changes, "train_data": train_data}
        self.check(fields)
        return TrainConfig.of(**fields)

    def fields(self, processes: int | None = None) -> Fields:
        """The published fields. None keeps the published batch of one process, without accumulation.

        For another number of processes --accum-freq makes up, so that a step has the published global batch; raises
        `ConfigError` where they cannot share it.
        """
        most = self.global_batch // (self.processes or 1)
        if processes is None or processes == self.processes:
            return {**self.stated(), "batch_size": most}
        if self.global_batch % processes:
            near = [n for n in range(1, self.global_batch + 1) if self.global_batch % n == 0]
            below, above = max(n for n in near if n < processes), min(n for n in near if n > processes)
            raise ConfigError(
                f"The recipe {self.name} has a global batch of {self.global_batch}, which {processes} processes cannot "
                f"share. Take {below} or {above} of them, or state --batch-size and --accum-freq."
            )
        each = self.global_batch // processes
        batch = max(size for size in range(1, min(most, each) + 1) if each % size == 0)
        return {**self.stated(), "batch_size": batch, "accum_freq": each // batch}

    def check(self, fields: Fields) -> None:
        """Raise `ConfigError` where `fields` lack the weights that this recipe begins from."""
        if self.begins_from and not any(fields.get(name) for name in _BEGINNINGS):
            flags = " or ".join(f"--{name.replace('_', '-')}" for name in _BEGINNINGS)
            raise ConfigError(f"The recipe {self.name} begins from {self.begins_from}: give {flags}.")

    def remarks(self, fields: Fields, processes: int) -> list[str]:
        """What a run with `fields` should say first: where it differs from what was published."""
        said = [self.differs] if self.differs else []
        found = fields.get("batch_size", 64) * fields.get("accum_freq", 1) * processes
        if found != self.global_batch:
            said.append(f"The published global batch is {self.global_batch}; this run's is {found}.")
        return said


def recipe(
    *,
    source: str,
    global_batch: int,
    tags: tuple[str, ...] = (),
    processes: int | None = None,
    differs: str = "",
    begins_from: str = "",
) -> Callable[[Callable[[], Fields]], Recipe]:
    """Make a `Recipe` of a function without parameters that returns fields; its name and docstring are the recipe's."""

    def make(stated: Callable[[], Fields]) -> Recipe:
        made = Recipe(
            name=stated.__name__,
            summary=inspect.getdoc(stated) or "",
            tags=tags,
            source=source,
            global_batch=global_batch,
            processes=processes,
            differs=differs,
            begins_from=begins_from,
            stated=stated,
        )
        RECIPES[made.name] = made
        return made

    return make
