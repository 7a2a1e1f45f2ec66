"""Freezing a tower but for its last groups of parameters (LiT, Zhai et al. 2022), as OpenCLIP counts them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from torch import nn

from clip_core.errors import ConfigError

__all__ = ["Group", "unlock_last"]

Group = Sequence[nn.Module | nn.Parameter]
"""What is frozen or trained together."""


def unlock_last(groups: Sequence[Group], count: int, argument: str, *, outside: Iterable[nn.Parameter] = ()) -> None:
    """Freeze every parameter of `groups` and `outside`, then make those of the last `count` groups trainable.

    More than there are is all of them. Raises `ConfigError`, naming `argument`, for a negative count.
    """
    if count < 0:
        raise ConfigError(f"{argument} is {count}; allowed: 0 (all frozen) or more; {len(groups)} is all.")
    for parameter in itertools.chain(outside, *map(_parameters, groups)):
        parameter.requires_grad_(False)
    for group in groups[max(0, len(groups) - count) :]:
        for parameter in _parameters(group):
            parameter.requires_grad_(True)


def _parameters(group: Group) -> list[nn.Parameter]:
    return [p for item in group for p in ([item] if isinstance(item, nn.Parameter) else item.parameters())]
