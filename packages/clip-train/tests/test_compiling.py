"""Compiled training gives the losses of plain training, in few graphs that nothing breaks."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from clip_core.errors import ConfigError
from clip_train import TrainConfig, initial
from clip_train.config import ParallelConfig
from clip_train.parallel.compiling import check_compiler
from clip_train.plan import prepare
from clip_train.trainer import fit, start

_SPEC = importlib.util.spec_from_file_location("objective_world", Path(__file__).with_name("objective_world.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
cases = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(cases)

Make = Callable[..., TrainConfig]
# Of torch about itself: the compiler looks at it on every input.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Each test compiles and counts by itself."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    counters.clear()


def losses(config: TrainConfig) -> list[float]:
    records: list[dict[str, Any]] = []
    fit(start(prepare(config), record=records.append))
    return [record["loss"] for record in records]


def graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


@pytest.mark.parametrize(("strategy", "backend"), [("model", "eager"), ("task", "aot_eager"), ("step", "eager")])
def test_compiled_training_gives_the_same_losses(make_config: Make, strategy: str, backend: str) -> None:
    fields = {"torchcompile": True, "torchcompile_strategy": strategy, "torchcompile_backend": backend}
    assert losses(make_config(**fields)) == pytest.approx(losses(make_config()), rel=1e-5)
    assert not counters["graph_break"]
    # Shared by all blocks of images: with gradients for pixels or without, in training and at the end; and the loss.
    assert 0 < graphs() <= (4 if strategy == "model" else 5)


def test_packed_texts_are_compiled_once_for_all_lengths(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clip_core.towers.text.readable", lambda tokens: False)  # as the ids of a GPU
    monkeypatch.setattr("clip_train.parallel.compiling._sorting_blocks", lambda model: [])
    fields = {"torchcompile": True, "torchcompile_backend": "eager"}
    few = make_config(train_num_samples=16, **fields)
    plain = losses(make_config(train_num_samples=40))
    assert losses(make_config(train_num_samples=40, **fields)) == pytest.approx(plain, rel=1e-5)
    assert not counters["graph_break"]
    found = graphs()
    torch._dynamo.reset()
    counters.clear()
    losses(few)
    # The second batch of another size is compiled for any size; later ones are not compiled again.
    assert graphs() == found


def test_accumulation_and_captions_are_compiled_too(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initial, "create_model", lambda *given, **more: cases.captioner(49408))
    fields = {"batch_size": 2, "accum_freq": 2, "train_num_samples": 8}
    plain = losses(make_config(**fields))
    found = losses(make_config(**fields, torchcompile=True, torchcompile_backend="eager"))
    assert found == pytest.approx(plain, rel=1e-5)
    assert not counters["graph_break"]


@pytest.mark.slow
def test_inductor_trains(make_config: Make) -> None:
    plain = losses(make_config(train_num_samples=16))
    assert losses(make_config(train_num_samples=16, torchcompile=True)) == pytest.approx(plain, rel=1e-4)


def test_a_backend_that_is_not_there_is_named(make_config: Make) -> None:
    with pytest.raises(ConfigError, match=r"'inductr'.*inductor"):
        prepare(make_config(torchcompile=True, torchcompile_backend="inductr"))
    check_compiler(ParallelConfig())
    with pytest.raises(ConfigError, match="another backend"):
        ParallelConfig(torchcompile=True, torchcompile_backend="eager", torchcompile_mode="default")
