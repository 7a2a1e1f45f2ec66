"""What a run consists of, taken out of it and put back: model, optimiser, guard, account, position, and further parts.

A `Snapshot` is JSON and tensors, with no tie to the run's objects. Optimiser state is kept by the position of a
parameter, beside the names, so that another order is found. What this room leaves out: files (`full`, `sharded`).
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import logging
import platform
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor, nn

from clip_core.errors import CheckpointMismatch
from clip_train.__about__ import __version__
from clip_train.checkpoint.tree import Unpackable, pack, unpack
from clip_train.data.source import Source
from clip_train.trainer import Running

__all__ = [
    "Snapshot",
    "aligned",
    "alone",
    "fingerprint",
    "is_divided",
    "load_model",
    "load_optimizer",
    "restore",
    "take",
    "whole",
]

_log = logging.getLogger(__name__)

SCHEMA = 1

# What the configuration says about a group of parameters; the rest of a group is the optimiser's own memory.
_CONFIGURED = frozenset(
    {"params", "lr", "lr_scale", "weight_decay", "betas", "eps", "momentum", "nesterov", "maximize", "amsgrad"}
    | {"foreach", "fused", "capturable", "differentiable", "decoupled_weight_decay"}
)

# Parts that the first checkpoints of schema 1 lack; without them a run goes on, and they begin anew.
_LATER = frozenset({"bad_data"})
# Why a run needs a part that a checkpoint may not have.
_FLAGS = {"scaler": "--precision amp", "average": "--ema-decay"}


@dataclasses.dataclass(slots=True)
class Snapshot:
    """The state of a run after a step."""

    header: dict[str, Any]
    """Strict JSON: where the run stands, what it is of, and the trees of its parts."""
    model: dict[str, Tensor]
    parts: dict[str, dict[str, Tensor]]
    """The tensors of each part, by their place in it."""
    foreign: dict[str, Any]
    """Parts that neither JSON nor tensors can hold."""

    def tensors(self) -> dict[str, Tensor]:
        """All of them, as "model/<name>" and "<part>/<place>"."""
        found = {f"model/{name}": value for name, value in self.model.items()}
        for part, held in self.parts.items():
            found.update({f"{part}/{place}": value for place, value in held.items()})
        return found

    def map(self, change: Callable[[Tensor], Tensor]) -> Snapshot:
        """The same with `change` applied to every tensor."""
        return Snapshot(
            self.header,
            {name: change(value) for name, value in self.model.items()},
            {part: {place: change(value) for place, value in held.items()} for part, held in self.parts.items()},
            self.foreign,
        )


def take(running: Running) -> Snapshot:
    """The state of `running` between two steps; tensors are those of the run, not copies.

    Every process calls it at the same step. What each process found out about the data is put together.
    """
    plan = running.plan
    account = type(running.account)(plan.source)
    for findings in plan.world.gather(running.account.findings()):
        account.merge(findings)
    states: dict[str, Any] = {
        "optimizer": running.optimizer.state_dict(),
        "guard": running.guard.state_dict(),
        "account": account.findings(),
        "fit": dataclasses.asdict(running.state),
        **{name: part.state_dict() for name, part in running.parts.items()},
    }
    trees: dict[str, Any] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    foreign: dict[str, Any] = {}
    for name, state in states.items():
        tensors: dict[str, Tensor] = {}
        try:
            trees[name] = pack(state, tensors)
            parts[name] = tensors
        except Unpackable as error:
            _log.debug("%s is saved by torch.save: %s", name, error)
            foreign[name] = state
    header = {
        "schema": SCHEMA,
        "step": running.state.steps,
        "samples_seen": running.state.samples_seen,
        "global_batch": plan.global_batch,
        "batching": plan.batching.fingerprint,
        "per_epoch": plan.per_epoch,
        "seed": plan.config.run.seed,
        "data": fingerprint(plan.source),
        "order": plan.decoder.order.fingerprint,
        "processes": plan.world.size,
        "config": plan.config.to_json(),
        "config_sha256": plan.config.sha256,
        "parameters": _parameter_names(plan.bundle.model, running.optimizer),
        "optimizer": type(running.optimizer).__name__,
        "parts": trees,
        "versions": {"clip_train": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
    return Snapshot(header, dict(plan.bundle.model.state_dict()), parts, foreign)


def restore(running: Running, held: Snapshot, source: object) -> None:
    """Put `held`, which came from `source`, into `running`, which was started with the same model and optimiser.

    Raises `CheckpointMismatch` naming what does not fit.
    """
    plan = running.plan
    model = plan.bundle.model
    load_model(model, held.model, source)
    states = {name: unpack(tree, held.parts[name]) for name, tree in held.header["parts"].items()} | held.foreign
    names = _parameter_names(model, running.optimizer)
    if names != held.header["parameters"]:
        ours, theirs = ({name for group in groups for name in group} for groups in (names, held.header["parameters"]))
        odd = sorted(ours ^ theirs)
        raise CheckpointMismatch(
            f"{source} was trained with another set or order of parameters"
            + (f" ({odd[0]} is in one of the two alone)" if odd else "")
            + ". Go on with the same flags for what is locked and for decay, or begin with --pretrained."
        )
    # Checkpoints of schema 1 may lack it.
    kind = type(running.optimizer).__name__
    if held.header.get("optimizer", kind) != kind:
        raise CheckpointMismatch(
            f"{source} was trained with {held.header['optimizer']}, not {kind}, which remembers other things of each "
            "parameter. Go on with the same --opt, or begin with --pretrained."
        )
    load_optimizer(running.optimizer, states["optimizer"])
    running.guard.load_state_dict(states["guard"])
    if plan.world.is_first:
        # What all processes had found; together at the end of the run it must count once.
        running.account.merge(states["account"])
    for name, value in states["fit"].items():
        setattr(running.state, name, value)
    for name, part in running.parts.items():
        if name not in states and name in _LATER:
            continue
        if name not in states:
            because = f" because of {_FLAGS[name]}" if name in _FLAGS else ""
            raise CheckpointMismatch(
                f"{source} has no {name}, which this run needs{because}. Go on with the same flags, or begin with "
                "--pretrained."
            )
        part.load_state_dict(aligned(states[name], part.state_dict()))
    left = sorted(set(states) - {"optimizer", "guard", "account", "fit", *running.parts})
    if left:
        _log.warning("%s holds %s, which this run does not use", source, ", ".join(left))


def fingerprint(source: Source) -> str:
    """What tells one data set from another: the source's own, or that of the names and the number of its samples."""
    own = getattr(source, "fingerprint", None)
    if own is not None:
        return str(own() if callable(own) else own)
    words = [str(len(source)), *(PurePath(group).name for group in source.groups)]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def is_divided(value: Tensor) -> bool:
    """Whether the processes hold `value` in pieces (a DTensor)."""
    return hasattr(value, "full_tensor")


def whole(value: Tensor) -> Tensor:
    """`value` in one piece; every process asks for the same ones in the same order."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def alone(value: Any) -> Any:
    """A copy of `value` that shares no memory with it; its tensors are on the CPU."""
    if isinstance(value, Tensor):
        here = value.detach()
        return here.to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: alone(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(alone(item) for item in value)
    return copy.deepcopy(value)


def aligned(value: Any, like: Any) -> Any:
    """`value` with its tensors divided over the processes, and on the device, as those in the same places of `like`."""
    if isinstance(value, Tensor):
        return _divided(value, like) if isinstance(like, Tensor) and is_divided(like) else value
    if isinstance(value, Mapping) and isinstance(like, Mapping):
        return {key: aligned(item, like.get(key)) for key, item in value.items()}
    if isinstance(value, list) and isinstance(like, list) and len(value) == len(like):
        return [aligned(item, other) for item, other in zip(value, like, strict=True)]
    return value


def _divided(value: Tensor, like: Any) -> Tensor:
    if is_divided(value):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def _parameter_names(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[list[str]]:
    """The names of the parameters of each group, in their order."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [[names.get(id(p), "?") for p in group["params"]] for group in optimizer.param_groups]


@torch.no_grad()
def load_model(model: nn.Module, held: Mapping[str, Tensor], source: object) -> None:
    """Copy `held` into `model`, divided as that is; raises `CheckpointMismatch` where names or shapes differ."""
    own = model.state_dict()
    odd = sorted(own.keys() ^ held.keys())
    if odd:
        where = "the checkpoint" if odd[0] in held else "the model"
        raise CheckpointMismatch(
            f"{source} is of another model: {odd[0]} is in {where} alone"
            + (f", and {len(odd) - 1} more are in one of the two" if odd[1:] else "")
            + ". Go on with the same --model and the same flags about it."
        )
    for name, value in own.items():
        if value.shape != held[name].shape:
            raise CheckpointMismatch(
                f"{source} is of another model: {name} has shape {tuple(held[name].shape)} there and "
                f"{tuple(value.shape)} here."
            )
        value.copy_(aligned(held[name], value))


def load_optimizer(optimizer: torch.optim.Optimizer, held: dict[str, Any]) -> None:
    """State from `held`; of the groups only what the configuration does not say."""
    own = optimizer.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {
        number: {
            key: aligned(value, parameters[number])
            if isinstance(value, Tensor) and value.shape == parameters[number].shape
            else value
            for key, value in values.items()
        }
        for number, values in held["state"].items()
    }
    groups = [
        {**theirs, **{key: value for key, value in ours.items() if key in _CONFIGURED}}
        for ours, theirs in zip(own["param_groups"], held["param_groups"], strict=True)
    ]
    optimizer.load_state_dict({**held, "state": state, "param_groups": groups})
