"""Evaluation of a model in training: the numbers of the saved one, a bounded share of the time, nothing disturbed."""

from __future__ import annotations

import dataclasses
import json
import random
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clip_core.errors import ConfigError
from clip_eval import in_training
from clip_eval.encoder import Encoder
from clip_eval.in_training import InTraining, score
from clip_eval.wds import open_dataset


@pytest.fixture
def datasets(make_classification, make_retrieval):
    return [open_dataset(make_classification()), open_dataset(make_retrieval(["a cat\nan animal", "a dog", "an owl"]))]


def test_the_numbers_are_those_of_the_saved_model(bundle, datasets) -> None:
    expected = {}
    for dataset in datasets:
        encoder = Encoder(bundle=bundle)
        for name, metric in score(encoder, dataset, encoder.images(dataset)).metrics.items():
            place = f"{dataset.name}/{name}"
            expected |= {place: metric.value, f"{place}_low": metric.low, f"{place}_high": metric.high}
    found = InTraining(dataclasses.replace(bundle, model=bundle.model.train()), datasets, last_step=5).run(5)
    own = {name: found.pop(name) for name in ("evaluation_seconds", "evaluation_share", "next_evaluation_step")}
    assert found == expected
    assert 0 < own["evaluation_share"] <= 1
    assert all(isinstance(value, float | int) for value in found.values())


def test_training_goes_on_as_if_nothing_had_happened(bundle, datasets) -> None:
    model = bundle.model.train()
    model.visual.ln_pre.eval()  # as whoever freezes a part does
    modes = [module.training for module in model.modules()]
    evaluation = InTraining(bundle, datasets, last_step=1)

    def draws() -> list[float]:
        return [torch.rand(()).item(), random.random(), np.random.rand()]  # noqa: NPY002

    torch.manual_seed(3), random.seed(3), np.random.seed(3)  # noqa: NPY002
    expected = draws()
    torch.manual_seed(3), random.seed(3), np.random.seed(3)  # noqa: NPY002
    assert "animals/acc1" in evaluation.run(1)
    assert draws() == expected
    assert [module.training for module in model.modules()] == modes
    # Whatever the model has kept of the evaluation can be trained with.
    output = model(torch.rand(2, 3, 32, 32), bundle.tokenizer(["a cat", "a dog"]))
    (output.image_features * output.text_features).sum().backward()
    assert model.visual.proj.grad.isfinite().all()
    assert model.text_projection.grad.isfinite().all()


def test_modes_come_back_after_an_error(bundle, datasets) -> None:
    bundle.model.train()

    def fail(*_):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        InTraining(bundle, datasets, last_step=1, score=fail).run(1)
    assert bundle.model.training


@pytest.mark.parametrize(
    ("cost", "every", "share"), [(10.0, 1, 0.05), (10.0, 50, 0.05), (0.5, 10, 0.2), (90.0, 7, 0.1)]
)
@pytest.mark.parametrize("before", [0, 1_000_000])
def test_the_share_of_the_time_is_bounded_at_every_moment(
    bundle, datasets, monkeypatch, cost: float, every: int, share: float, before: int
) -> None:
    now = 0.0
    monkeypatch.setattr(in_training, "perf_counter", lambda: now)
    monkeypatch.setattr(Encoder, "estimate_seconds", lambda self, dataset: cost)
    monkeypatch.setattr(Encoder, "images", lambda self, dataset: SimpleNamespace(excluded=()))

    def slow(*_):
        nonlocal now
        now += cost
        return SimpleNamespace(metrics={})

    # A number of its own, so that a turn that was put off can be told from one that was taken.
    monkeypatch.setattr(InTraining, "_evaluate", lambda self, encoder, dataset: slow() and {"done": 1.0})
    evaluation = InTraining(bundle, datasets[:1], every=every, share=share)
    spent, turns = 0.0, []
    for step in range(before + 1, before + 2001):
        now += 1.0
        if evaluation.due(step):
            assert step % every == 0
            found = evaluation.run(step)
            if "done" in found:
                spent += cost
                turns.append(step)
                assert found["evaluation_share"] == pytest.approx(spent / now)
            assert spent / now <= share + 1e-9
            assert found["next_evaluation_step"] == evaluation.next_step > step
    # Nearly all of the share is used, unless `every` asks for less.
    possible = min(2000 / every, share * 2000 / cost)
    assert 0.7 * possible - 1 <= len(turns) <= possible / (1 - share) + 1


def test_arguments_out_of_range(bundle, datasets) -> None:
    with pytest.raises(ConfigError, match="a name of its own"):
        InTraining(bundle, [datasets[0], datasets[0]])
    with pytest.raises(ConfigError, match="share=0"):
        InTraining(bundle, datasets, share=0)


@pytest.mark.skipif(sys.platform != "linux", reason="the processes are forked")
def test_processes_evaluate_together_and_agree_when(worlds) -> None:
    results = [
        json.loads((worlds / f"in training-{size}-{rank}.json").read_text()) for size, rank in ((1, 0), (2, 0), (2, 1))
    ]
    assert list(results[0]["found"]) == ["3", "6", "9"]
    assert "data/acc1" in results[0]["found"]["3"]
    assert results[0]["training"]
    assert results[1] == results[2] == results[0]
