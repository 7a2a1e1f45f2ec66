"""Which parameters an optimiser treats alike: with and without weight decay, by layers, and Muon's exceptions.

A group may carry `lr_scale`, its share of the learning rate (`optim.set_learning_rate`). What this room leaves out:
which layers a tower has (`layer_groups` of clip-core's towers), and the optimisers (`optim`).
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Sequence
from typing import Any

from torch import nn

from clip_core import Clip
from clip_core.errors import ConfigError
from clip_train.config import OptimConfig

__all__ = ["has_weight_decay", "layer_scales", "parameter_groups"]


def has_weight_decay(name: str, parameter: nn.Parameter) -> bool:
    """Whether open_clip decays this parameter: matrices and larger, unless the name says norm, bias or logit scale."""
    return parameter.ndim >= 2 and not any(part in name for part in ("bn", "ln", "bias", "logit_scale"))


def parameter_groups(model: Clip, config: OptimConfig) -> list[dict[str, Any]]:
    """What is trainable, each parameter once, in groups that differ in something; first those without decay.

    AdamW and NAdamW decay what `has_weight_decay` says, as open_clip 3.3 does. An optimiser of timm decays every
    matrix but those that the model itself excepts (`Clip.no_weight_decay`: positions, class tokens), as it does there.

    Raises:
        ConfigError: a pattern of `wd_exclude` or `opt_fallback_list` that no parameter has.
    """
    excepted = model.no_weight_decay() if config.opt.startswith("timm/") else None
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    for field in ("wd_exclude", "opt_fallback_list"):
        _require_matches(field, getattr(config, field), [name for name, _ in named])
    scales = layer_scales(model, config)
    groups: dict[tuple[float, bool, bool], dict[str, Any]] = {}
    for name, parameter in named:
        decays = has_weight_decay(name, parameter) if excepted is None else parameter.ndim >= 2 and name not in excepted
        decays = decays and not _matches(name, config.wd_exclude)
        falls_back = _matches(name, config.opt_fallback_list)
        scale = scales.get(id(parameter), 1.0)
        group = groups.setdefault(
            (-scale, decays, falls_back),
            {
                "params": [],
                "weight_decay": config.wd if decays else 0.0,
                **({"lr_scale": scale} if scales else {}),
                # The word of timm's optimisers that are two in one.
                **({"use_fallback": True} if falls_back else {}),
            },
        )
        group["params"].append(parameter)
    # The same order whichever parameter comes first: largest share of the learning rate, then no decay, then decay.
    return [groups[key] for key in sorted(groups)]


def layer_scales(model: Clip, config: OptimConfig) -> dict[int, float]:
    """The share of the learning rate of each parameter whose tower has a layer decay, by `id`; empty without any.

    The last group of layers has 1, and each one before it `decay` times that of the next (Clark et al. 2020, ELECTRA).
    """
    scales: dict[int, float] = {}
    for decay, layers in (
        (config.image_layer_decay, model.visual.layer_groups),
        (
            config.text_layer_decay,
            functools.partial(model.text_tower.text_layer_groups, pooling_apart=config.text_pooler_own_group),
        ),
    ):
        if decay is None or decay == 1:
            continue
        groups = layers()
        for number, group in enumerate(groups):
            for member in group:
                for parameter in [member] if isinstance(member, nn.Parameter) else member.parameters():
                    scales[id(parameter)] = decay ** (len(groups) - 1 - number)
    return scales


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _require_matches(field: str, patterns: Sequence[str], names: Sequence[str]) -> None:
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                f"{field} has {pattern!r}, which no trained parameter matches. A pattern is of a whole name, such as "
                f"{names[-1] if names else 'visual.proj'!r}; write * for the rest of it."
            )
