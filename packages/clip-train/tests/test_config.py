from __future__ import annotations

import json
from typing import Any

import pytest

from clip_core.errors import ConfigError
from clip_train import (
    AugmentConfig,
    DataConfig,
    LoggingConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    RunConfig,
    TrainConfig,
)
from clip_train.config import adam_defaults

pytestmark = pytest.mark.parity


def test_json_and_back_gives_an_equal_configuration() -> None:
    config = TrainConfig.of(
        model="ViT-B-32",
        train_data="a.tar",
        lr=1e-3,
        image_mean=(0.5, 0.5, 0.25),
        aug_cfg=AugmentConfig(scale=(0.4, 1.0)),
        grad_clip_norm=1.0,
        name="x",
    )
    text = json.dumps(config.to_json(), allow_nan=False)
    assert TrainConfig.from_json(json.loads(text)) == config


def test_of_finds_the_group_of_every_field() -> None:
    config = TrainConfig.of(model="tiny", train_data="a.tar", workers=1, epochs=3, seed=4)
    assert (config.data.workers, config.optim.epochs, config.run.seed) == (1, 3, 4)
    assert config.replace(epochs=5).optim.epochs == 5
    assert config.replace(epochs=5).replace(epochs=3) == config


def test_replace_keeps_adam_values_that_were_set() -> None:
    config = TrainConfig.of(model="tiny", train_data="a.tar", beta2=0.9, eps=1e-3)
    assert (config.replace(epochs=1).optim.beta2, config.replace(epochs=1).optim.eps) == (0.9, 1e-3)


def test_adam_defaults_are_those_of_open_clip() -> None:
    from open_clip_train.params import get_default_params

    for name in ("ViT-B-32", "RN50", "EVA02-B-16", "coca_ViT-B-32", "convnext_base"):
        theirs = get_default_params(name)
        ours = TrainConfig.of(model=name, train_data="a.tar").optim
        assert {"lr": ours.lr, "beta1": ours.beta1, "beta2": ours.beta2, "eps": ours.eps} == theirs, name
    assert adam_defaults("tiny") == adam_defaults("ViT-B-32")


def test_an_unknown_key_is_an_error_with_a_suggestion() -> None:
    body = TrainConfig.of(model="tiny", train_data="a.tar").to_json()
    body["optim"]["warmupp"] = 3
    with pytest.raises(ConfigError, match=r"'warmupp'.*warmup"):
        TrainConfig.from_json(body)
    with pytest.raises(ConfigError, match=r"'batchsize'.*batch_size"):
        TrainConfig.of(model="tiny", train_data="a.tar", batchsize=3)


@pytest.mark.parametrize("missing", ["model", "train_data"])
def test_what_has_no_default_must_be_given(missing: str) -> None:
    given = {"model": "tiny", "train_data": "a.tar"}
    del given[missing]
    with pytest.raises(ConfigError, match=missing):
        TrainConfig.of(**given)


@pytest.mark.parametrize(
    ("record", "field", "value"),
    [
        (OptimConfig, "batch_size", 1),
        (OptimConfig, "batch_size", "64"),
        (OptimConfig, "epochs", 0),
        (OptimConfig, "lr", 0.0),
        (OptimConfig, "lr", float("nan")),
        (OptimConfig, "beta1", 1.0),
        (OptimConfig, "beta2", -0.1),
        (OptimConfig, "eps", 0.0),
        (OptimConfig, "wd", -1.0),
        (OptimConfig, "warmup", -1),
        (OptimConfig, "lr_scheduler", "cosin"),
        (OptimConfig, "grad_clip_norm", 0.0),
        (ObjectiveConfig, "loss_dist_impl", "bidir"),
        (RunConfig, "precision", "int8"),
        (RunConfig, "seed", -1),
        (RunConfig, "logs", "None"),
        (RunConfig, "name", "a/b"),
        (RunConfig, "name", ".."),
        (LoggingConfig, "log_every_n_steps", 0),
    ],
)
def test_a_value_that_is_not_allowed_is_named(record: Any, field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{field} is {value!r}.*allowed"):
        record(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [("workers", -1), ("train_num_samples", 0), ("csv_separator", "ab"), ("dataset_type", "tar"), ("train_data", " ")],
)
def test_data_values_that_are_not_allowed_are_named(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{field} is {value!r}.*allowed"):
        DataConfig(**{"train_data": "a.tar", field: value})


@pytest.mark.parametrize(("field", "value"), [("image_std", (0.1, 0.0, 0.1)), ("image_mean", (0.5,)), ("model", "")])
def test_model_values_that_are_not_allowed_are_named(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=field):
        ModelConfig(**{"model": "tiny", field: value})
