"""The whole run: `TrainConfig`, built from its groups, or from the fields of all of them by their own names."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from collections.abc import Mapping
from typing import Any

from clip_core.errors import ConfigError, nearest
from clip_core.preprocess import AugmentConfig
from clip_core.schema import Schema
from clip_train.config.checkpoint import CheckpointConfig
from clip_train.config.data import DataConfig
from clip_train.config.evaluation import EvaluationConfig
from clip_train.config.logging import LoggingConfig
from clip_train.config.model import ModelConfig
from clip_train.config.naflex import FlexConfig
from clip_train.config.objective import ObjectiveConfig
from clip_train.config.optim import OptimConfig
from clip_train.config.parallel import ParallelConfig
from clip_train.config.run import RunConfig

__all__ = ["TrainConfig", "adam_defaults", "groups"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig(Schema):
    """One run, complete: nothing else decides what is trained.

    `TrainConfig.of(model="tiny", train_data="a.tar", lr=1e-3)` takes the fields of all groups by their own names.
    """

    data: DataConfig
    model: ModelConfig
    naflex: FlexConfig = dataclasses.field(default_factory=FlexConfig)
    objective: ObjectiveConfig = dataclasses.field(default_factory=ObjectiveConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    parallel: ParallelConfig = dataclasses.field(default_factory=ParallelConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    logging: LoggingConfig = dataclasses.field(default_factory=LoggingConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)

    @classmethod
    def of(cls, **fields: Any) -> TrainConfig:
        """The configuration with `fields` of any group; Adam's defaults follow the model as in open_clip.

        Raises `ConfigError` for an unknown field (with the nearest names), a missing one, or a value not allowed.
        """
        owners = {field.name: group for group, record in groups().items() for field in dataclasses.fields(record)}
        for name in fields:
            if name not in owners:
                raise ConfigError(f"Unknown field {name!r}.{_hint(name, list(owners))}")
        for name, what in (
            ("train_data", "which data to train on; clip-eval evaluates without any"),
            ("model", "which architecture to train"),
        ):
            if name not in fields and not (name == "train_data" and fields.get("dataset_type") == "synthetic"):
                raise ConfigError(f"{name} is missing: say {what}.")
        body: dict[str, dict[str, Any]] = {group: {} for group in groups()}
        body["optim"].update(adam_defaults(fields["model"], fields.get("opt", "adamw")))
        for name, value in fields.items():
            is_aug = name == "aug_cfg" and isinstance(value, Mapping)
            body[owners[name]][name] = _augmentation(value, bool(fields.get("use_naflex"))) if is_aug else value
        return cls(**{group: record(**body[group]) for group, record in groups().items()})

    def replace(self, **fields: Any) -> TrainConfig:
        """This configuration with other values for `fields`, named as in `of`."""
        return type(self).of(**{**self.fields(), **fields})

    def fields(self) -> dict[str, Any]:
        """The values of all groups by their own names, as `of` takes them."""
        return {f.name: getattr(getattr(self, g), f.name) for g, r in groups().items() for f in dataclasses.fields(r)}

    @property
    def sha256(self) -> str:
        """What this run is, in 64 hexadecimal digits: the hash of its JSON with sorted keys and no spaces."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def groups() -> dict[str, type[Any]]:
    """Group name -> record class, in the order in which `--help` shows them."""
    hints = typing.get_type_hints(TrainConfig)
    return {field.name: hints[field.name] for field in dataclasses.fields(TrainConfig)}


def adam_defaults(model: str, opt: str = "adamw") -> dict[str, float | None]:
    """open_clip's rule: a name with "vit" in it trains with the ViT values of Radford et al. (2021), others do not.

    An optimiser of timm keeps its own.

    The rule goes by the name, so that a command line gives the same run here and there (EVA02-B-16 holds no "vit").
    `tiny` is our own name and a ViT.
    """
    if str(opt).startswith("timm/"):
        return {"beta1": None, "beta2": None, "eps": None}
    is_vit = "vit" in str(model).lower() or model == "tiny"
    return {"beta2": 0.98, "eps": 1e-6} if is_vit else {"beta2": 0.999, "eps": 1e-8}


def _augmentation(stated: Mapping[str, Any], use_naflex: bool) -> AugmentConfig:
    """What `stated` says, in which open_clip wants to see "naflex", too, where there is --use-naflex."""
    rest = dict(stated)
    naflex = rest.pop("naflex", use_naflex)
    if naflex is not use_naflex:
        raise ConfigError(f"aug_cfg has naflex={naflex}, which goes by --use-naflex here. Leave it out.")
    return AugmentConfig.from_json(rest)


def _hint(name: str, known: list[str]) -> str:
    close = nearest(name, known)
    return f" Did you mean {', '.join(close)}?" if close else f" Known: {', '.join(known)}."
