"""A training run as data: `TrainConfig`, four groups of strict, frozen records that check themselves.

Field names are the flags of the command line (open_clip's names, dashes as underscores); `flags` builds the parser
from these records and their `help`. A run saves its resolved configuration as `config.json`. What this room leaves
out: whether a path or a model name exists, which `plan` finds out before anything is written.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import MISSING
from typing import Any, Literal

from clip_core.errors import ConfigError, nearest
from clip_core.preprocess import AugmentConfig
from clip_core.schema import Schema

__all__ = [
    "AugmentConfig",
    "DataConfig",
    "ModelConfig",
    "OptimConfig",
    "ParallelConfig",
    "RunConfig",
    "TrainConfig",
    "adam_defaults",
    "groups",
]

Channels = tuple[float, float, float]


def _flag(default: Any = MISSING, *, help: str) -> Any:
    """A field with the sentence that `--help` shows for it."""
    return dataclasses.field(default=default, metadata={"help": help})


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig(Schema):
    """Which images and captions are seen, and how they are read."""

    train_data: str = _flag(help="shards, braces and :: allowed ('a/{00000..00041}.tar::b/0.tar'), or a csv file")
    dataset_type: Literal["auto", "webdataset", "csv"] = _flag("auto", help="kind of data; auto goes by file extension")
    train_num_samples: int | None = _flag(
        None, help="samples that count as one epoch; not given: as many as the data holds"
    )
    csv_separator: str = _flag("\t", help="csv: the character between columns")
    csv_img_key: str = _flag("filepath", help="csv: column with image paths, relative to the csv file or absolute")
    csv_caption_key: str = _flag("title", help="csv: column with captions")
    workers: int = _flag(4, help="processes that read and decode; 0: the training process does it itself")
    aug_cfg: AugmentConfig = dataclasses.field(
        default_factory=AugmentConfig,
        metadata={"help": "augmentation as key=value, for example scale='(0.5, 1.0)'"},
    )

    def check(self) -> None:
        self.require(bool(self.train_data.strip()), "train_data", "a path or a pattern that is not empty")
        self.require(self.train_num_samples is None or self.train_num_samples > 0, "train_num_samples", "1 or more")
        self.require(len(self.csv_separator) == 1, "csv_separator", "one character")
        self.require(self.workers >= 0, "workers", "0 or more")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig(Schema):
    """What is trained, and from which weights."""

    model: str = _flag(help="architecture name, for example ViT-B-32 or tiny")
    pretrained: str = _flag("", help="initial weights: a tag, a bundle folder or a weight file; empty: random")
    image_mean: Channels | None = _flag(None, help="mean per RGB channel on a 0 to 1 scale; not given: the model's own")
    image_std: Channels | None = _flag(None, help="standard deviation per channel; not given: the model's own")
    image_interpolation: Literal["bicubic", "bilinear"] | None = _flag(
        None, help="resize filter; not given: the model's own"
    )

    def check(self) -> None:
        self.require(bool(self.model.strip()), "model", "an architecture name; clip_core.list_models() lists them")
        self.require(self.image_std is None or min(self.image_std) > 0, "image_std", "three numbers above 0")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig(Schema):
    """The loss, AdamW, and its learning rate over time."""

    batch_size: int = _flag(64, help="samples of one process in one micro-batch")
    epochs: int = _flag(32, help="passes over the data (see --train-num-samples)")
    lr: float = _flag(5e-4, help="peak learning rate")
    beta1: float = _flag(0.9, help="Adam's decay of the mean of gradients")
    beta2: float = _flag(0.98, help="Adam's decay of the mean of squares; 0.999 where the model is no ViT")
    eps: float = _flag(1e-6, help="Adam's epsilon; 1e-8 where the model is no ViT")
    wd: float = _flag(0.2, help="weight decay; gains, biases and the logit scale have none")
    warmup: int = _flag(10_000, help="steps of linear warm-up")
    lr_scheduler: Literal["cosine", "const"] = _flag("cosine", help="course of the learning rate after warm-up")
    accum_freq: int = _flag(
        1, help="micro-batches of --batch-size in one step; the gradient is that of one batch of all of them"
    )
    grad_clip_norm: float | None = _flag(None, help="clip the gradient to this norm; not given: no clipping")
    siglip: bool = _flag(
        False, help="SigLIP's sigmoid loss; a model without a bias gets one, and scale and bias begin as in open_clip"
    )
    loss_dist_impl: Literal["gather", "ring"] = _flag(
        "gather",
        help="with several processes each loss gathers the texts of all, or passes them round in a ring with less "
        "memory and more to send; same result. open_clip's bidir and shift are ring, reduce is gather",
    )
    local_loss: bool = _flag(False, help="taken and not needed: the gradient is that of the whole batch in any case")
    gather_with_grad: bool = _flag(False, help="taken and not needed, as --local-loss")

    def check(self) -> None:
        self.require(self.batch_size >= 2, "batch_size", "2 or more: the loss compares the samples of a batch")
        self.require(self.epochs >= 1, "epochs", "1 or more")
        self.require(self.lr > 0, "lr", "above 0")
        for name in ("beta1", "beta2"):
            self.require(0 <= getattr(self, name) < 1, name, "0 or more and below 1")
        self.require(self.eps > 0, "eps", "above 0")
        self.require(self.wd >= 0, "wd", "0 or more")
        self.require(self.warmup >= 0, "warmup", "0 or more")
        self.require(self.accum_freq >= 1, "accum_freq", "1 or more")
        self.require(self.grad_clip_norm is None or self.grad_clip_norm > 0, "grad_clip_norm", "above 0, or None")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ParallelConfig(Schema):
    """How several processes meet and share the work; torchrun or srun start them, without a flag."""

    dist_url: str | None = _flag(None, help="where the processes meet, say tcp://host:port; not given: as launched")
    dist_backend: str | None = _flag(None, help="torch's backend; not given: nccl for GPUs, gloo for CPUs")
    ddp_static_graph: bool = _flag(False, help="promise that every step uses the same parameters, which DDP can use")

    def check(self) -> None:
        for name in ("dist_url", "dist_backend"):
            self.require(getattr(self, name) != "", name, "text that is not empty")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig(Schema):
    """Where and how exactly it runs, and what it leaves behind."""

    device: str = _flag("auto", help="cpu, cuda or cuda:N; auto takes cuda where there is one")
    precision: Literal["fp32", "amp_bf16"] = _flag(
        "amp_bf16", help="arithmetic: fp32 throughout, or bfloat16 in matrix products (amp_bfloat16 is the same)"
    )
    seed: int = _flag(0, help="start of every random choice: initial weights, order, augmentation")
    logs: str = _flag("./logs/", help="folder that holds the run folders")
    name: str | None = _flag(None, help="name of the run folder; not given: date, model, lr, batch size ...")
    log_every_n_steps: int = _flag(100, help="steps between two lines of the log")
    debug: bool = _flag(False, help="log more")

    def check(self) -> None:
        self.require(0 <= self.seed < 2**63, "seed", "0 or more and below 2**63")
        self.require(
            self.logs.strip() not in ("", "None"), "logs", "a folder; a run always writes its metrics and its bundle"
        )
        plain = self.name is None or (self.name.strip() not in ("", ".", "..") and not set(self.name) & set("/\\\0"))
        self.require(plain, "name", "the name of a folder, without slashes")
        self.require(self.log_every_n_steps >= 1, "log_every_n_steps", "1 or more")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig(Schema):
    """One run, complete: nothing else decides what is trained.

    `TrainConfig.of(model="tiny", train_data="a.tar", lr=1e-3)` takes the fields of all groups by their own names.
    """

    data: DataConfig
    model: ModelConfig
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    parallel: ParallelConfig = dataclasses.field(default_factory=ParallelConfig)
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
        for name, what in (("train_data", "which data to train on"), ("model", "which architecture to train")):
            if name not in fields:
                raise ConfigError(f"{name} is missing: say {what}.")
        body: dict[str, dict[str, Any]] = {group: {} for group in groups()}
        body["optim"].update(adam_defaults(fields["model"]))
        for name, value in fields.items():
            is_aug = name == "aug_cfg" and isinstance(value, Mapping)
            body[owners[name]][name] = AugmentConfig.from_json(value) if is_aug else value
        return cls(**{group: record(**body[group]) for group, record in groups().items()})

    def replace(self, **fields: Any) -> TrainConfig:
        """This configuration with other values for `fields`, named as in `of`."""
        values = {f.name: getattr(getattr(self, g), f.name) for g, r in groups().items() for f in dataclasses.fields(r)}
        return type(self).of(**{**values, **fields})


def groups() -> dict[str, type[Any]]:
    """Group name -> record class, in the order in which `--help` shows them."""
    hints = typing.get_type_hints(TrainConfig)
    return {field.name: hints[field.name] for field in dataclasses.fields(TrainConfig)}


def adam_defaults(model: str) -> dict[str, float]:
    """open_clip's rule: a name with "vit" in it trains with the ViT values of Radford et al. (2021), others do not.

    The rule goes by the name, so that a command line gives the same run here and there (EVA02-B-16 holds no "vit").
    `tiny` is our own name and a ViT.
    """
    is_vit = "vit" in str(model).lower() or model == "tiny"
    return {"beta2": 0.98, "eps": 1e-6} if is_vit else {"beta2": 0.999, "eps": 1e-8}


def _hint(name: str, known: list[str]) -> str:
    close = nearest(name, known)
    return f" Did you mean {', '.join(close)}?" if close else f" Known: {', '.join(known)}."
