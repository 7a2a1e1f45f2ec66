"""The probe as a task: what it learns from, what it chooses on, and what the record says."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from clip_core.errors import ConfigError, DataError
from clip_eval.features import ImageFeatures
from clip_eval.probe.running import Split, run_probe
from clip_eval.probe.solver import ProbeProblem
from clip_eval.probe.sweep import DECAYS, choose_decay, nearest
from clip_eval.tasks.linear_probe import evaluate_linear_probe
from clip_eval.wds import Sample, WdsDataset

ENCODER: Any = SimpleNamespace(bundle=SimpleNamespace(model=SimpleNamespace(logit_scale=torch.zeros(()))))
CENTRES = torch.randn(6, 16, generator=torch.Generator().manual_seed(99))


def part(
    split: str, labels: torch.Tensor, seed: int, *, noise: float = 1.2, classes: int = 6, kind: str = "classification"
) -> tuple[WdsDataset, ImageFeatures]:
    """A split whose images are noise around the centre of their class; for several labels the sum of theirs."""
    n = len(labels)
    present: tuple[tuple[int, ...], ...] = ()
    centres = CENTRES[labels] if labels.ndim == 1 else labels.float() @ CENTRES
    if labels.ndim == 2:
        present = tuple(tuple(row.nonzero().flatten().tolist()) for row in labels)
    random = torch.Generator().manual_seed(seed)
    features = torch.nn.functional.normalize(centres + noise * torch.randn(n, 16, generator=random), dim=1)
    dataset = WdsDataset(
        name="made_up",
        folder=Path("made_up"),
        split=split,
        kind=kind,  # type: ignore[arg-type]
        samples=tuple(Sample(f"{split}.tar", f"{split}{number:05d}", {"png": (0, 1)}) for number in range(n)),
        classnames=tuple(f"class {number}" for number in range(classes)),
        templates=("a {c}",),
        labels=tuple(labels.tolist()) if labels.ndim == 1 else (),
        present=present,
    )
    images = ImageFeatures(features=features, kept=torch.arange(n), excluded=(), seconds_decode=0.0, seconds_encode=0.0)
    return dataset, images


def probe(test: Any, train: Any, validation: Any = (None, None), **options: Any) -> Any:
    return evaluate_linear_probe(
        ENCODER,
        *test,
        train=train[0],
        train_images=train[1],
        validation=validation[0],
        validation_images=validation[1],
        **options,
    )


TRAIN = part("train", torch.arange(240) % 6, seed=0)
TEST = part("test", torch.arange(150) % 6, seed=1)
VALIDATION = part("val", torch.arange(90) % 6, seed=2)


def test_the_whole_result() -> None:
    from sklearn.linear_model import LogisticRegression

    found = probe(TEST, TRAIN)
    assert set(found.metrics) == {"lp_acc1", "lp_acc5", "lp_mean_per_class_recall"}
    (run,) = found.details["runs"]
    assert (run["learnt_from"], run["validated_on"], found.details["train_images"]) == (240, 48, 240)
    assert found.details["validation"] == "drawn from the training images"
    assert run["converged"]
    assert 10 <= len(run["sweep"]) <= 14
    best = max(run["sweep"], key=lambda trial: (trial["score"], -trial["loss"]))
    assert run["weight_decay"] == found.details["weight_decay"] == best["decay"]
    features, labels = TRAIN[1].features, torch.tensor(TRAIN[0].labels)
    peer = LogisticRegression(C=1 / (best["decay"] * 240), tol=1e-8, max_iter=5000).fit(features.numpy(), labels)
    assert found.metrics["lp_acc1"].value == pytest.approx(peer.score(TEST[1].features.numpy(), TEST[0].labels))
    assert 0.5 < found.metrics["lp_acc1"].value < 1
    weights = found.artefacts["probe"]
    assert weights["weight"].shape == (6, 16)
    logits = TEST[1].features @ weights["weight"].T + weights["bias"]
    assert [sample.right for sample in found.samples] == (logits.argmax(1) == torch.tensor(TEST[0].labels)).tolist()
    for name, outcome in found.outcomes.items():
        assert float(outcome.values.mean()) == pytest.approx(found.metrics[name].value, abs=1e-6)
    json.dumps(found.details, allow_nan=False)


def test_the_test_images_have_no_part_in_the_choice() -> None:
    dataset, images = part("test", torch.arange(150).flip(0) % 6, seed=77, noise=9.0)
    first, second = probe(TEST, TRAIN), probe((dataset, images), TRAIN)
    assert first.details["runs"] == second.details["runs"]
    assert torch.equal(first.artefacts["probe"]["weight"], second.artefacts["probe"]["weight"])
    assert second.metrics["lp_acc1"].value < first.metrics["lp_acc1"].value


def test_a_given_validation_split_chooses_and_is_then_learnt_from() -> None:
    found = probe(TEST, TRAIN, VALIDATION, seeds=(3, 4))
    (run,) = found.details["runs"]  # nothing is drawn by lot
    assert (run["learnt_from"], run["validated_on"], run["seed"]) == (330, 90, 3)
    assert found.details["validation"] == "given"
    features = torch.cat([TRAIN[1].features, VALIDATION[1].features])
    labels = torch.tensor([*TRAIN[0].labels, *VALIDATION[0].labels])
    direct = ProbeProblem(features, labels, 6).fit(run["weight_decay"])
    assert torch.allclose(direct.weight.float(), found.artefacts["probe"]["weight"], atol=1e-2)


def test_a_given_decay_needs_no_validation() -> None:
    found = probe(TEST, TRAIN, weight_decay=1e-3)
    (run,) = found.details["runs"]
    assert (run["learnt_from"], run["validated_on"], run["sweep"]) == (240, 0, None)
    assert run["weight_decay"] == 1e-3


def test_few_shots_learn_from_the_shots_alone() -> None:
    found = probe(TEST, TRAIN, fewshot_k=4, seeds=(0, 1, 2))
    assert [run["learnt_from"] for run in found.details["runs"]] == [24] * 3
    assert [run["validated_on"] for run in found.details["runs"]] == [216] * 3
    values = found.details["spread"]["lp_acc1"]["values"]
    assert found.metrics["lp_acc1"].value == pytest.approx(sum(values) / 3)
    assert len(set(values)) > 1
    assert found.details["spread"]["lp_acc1"]["standard_deviation"] > 0
    assert "over 3 draws" in found.metrics["lp_acc1"].interval
    assert set(found.artefacts) == {"probe_seed0", "probe_seed1", "probe_seed2"}
    assert found.metrics["lp_acc1"].value < probe(TEST, TRAIN).metrics["lp_acc1"].value
    own = probe(TEST, TRAIN, VALIDATION, fewshot_k=4)
    assert (own.details["runs"][0]["learnt_from"], own.details["runs"][0]["validated_on"]) == (24, 90)
    for name, outcome in found.outcomes.items():
        assert float(outcome.values.mean()) == pytest.approx(found.metrics[name].value, abs=1e-6)


def test_few_shots_of_everything_leave_nothing_to_choose_on() -> None:
    with pytest.raises(DataError, match="No training image is left to choose"):
        probe(TEST, TRAIN, fewshot_k=40)
    assert probe(TEST, TRAIN, fewshot_k=40, weight_decay=1e-3).details["runs"][0]["learnt_from"] == 240
    with pytest.raises(DataError, match="6 of 6 classes have fewer than 41"):
        probe(TEST, TRAIN, fewshot_k=41)


def test_the_order_of_the_training_images_does_not_matter() -> None:
    from dataclasses import replace

    dataset, images = TRAIN
    mix = torch.randperm(240, generator=torch.Generator().manual_seed(0))
    mixed = replace(
        dataset,
        samples=tuple(dataset.samples[place] for place in mix.tolist()),
        labels=tuple(dataset.labels[place] for place in mix.tolist()),
    )
    other = (mixed, replace(images, features=images.features[mix]))
    for options in ({}, {"fewshot_k": 3}):
        first, second = probe(TEST, TRAIN, **options), probe(TEST, other, **options)
        assert second.details["weight_decay"] == pytest.approx(first.details["weight_decay"])
        assert second.metrics["lp_acc1"].value == pytest.approx(first.metrics["lp_acc1"].value)


def test_a_class_without_training_images_is_named_and_never_guessed() -> None:
    found = probe(TEST, part("train", torch.arange(200) % 5, seed=0))
    (run,) = found.details["runs"]
    assert run["classes_without_examples"] == ["class 5"]
    assert found.details["classes"][5]["recall"] == 0
    assert found.artefacts["probe"]["classes"].tolist() == [0, 1, 2, 3, 4]
    assert found.metrics["lp_acc1"].value <= 125 / 150
    json.dumps([sample.answers[0].similarity for sample in found.samples], allow_nan=False)


def test_collapsed_and_perfect_features() -> None:
    def with_features(split: Any, features: torch.Tensor) -> Any:
        return split[0], ImageFeatures(
            features=features, kept=split[1].kept, excluded=(), seconds_decode=0.0, seconds_encode=0.0
        )

    same = probe(with_features(TEST, torch.ones(150, 16) / 4), with_features(TRAIN, torch.ones(240, 16) / 4))
    assert same.metrics["lp_acc1"].value == pytest.approx(1 / 6)
    eye = torch.eye(16)
    perfect = probe(
        with_features(TEST, eye[torch.tensor(TEST[0].labels)]), with_features(TRAIN, eye[torch.tensor(TRAIN[0].labels)])
    )
    assert perfect.metrics["lp_acc1"].value == perfect.metrics["lp_mean_per_class_recall"].value == 1
    broken = eye[torch.tensor(TRAIN[0].labels)].clone()
    broken[5] = torch.nan
    with pytest.raises(DataError, match="NaN"):
        probe(TEST, with_features(TRAIN, broken))


def test_several_labels_are_learnt_one_against_the_rest() -> None:
    random = torch.Generator().manual_seed(0)
    shown = [torch.rand(n, 6, generator=random) < 0.3 for n in (300, 120)]
    shown[0][:, 4] = False
    train, test = (
        part(name, labels, seed=seed, kind="multilabel")
        for name, labels, seed in zip(("train", "test"), shown, (5, 6), strict=True)
    )
    found = probe(test, train)
    mean = found.metrics["lp_mean_average_precision"]
    assert mean.low <= mean.value <= mean.high
    assert found.details["runs"][0]["classes_without_examples"] == ["class 4"]
    precisions = [entry["average_precision"] for entry in found.details["classes"]]
    assert min(precisions[:4]) > 0.5
    # What was not learnt is at chance, and all of it is tied.
    assert precisions[4] == pytest.approx(float(shown[1][:, 4].float().mean()), abs=0.1)
    with pytest.raises(ConfigError, match="leave out fewshot_k"):
        probe(test, train, fewshot_k=2)


def test_options_that_do_not_fit() -> None:
    other = part("train", torch.arange(30) % 5, seed=0, classes=5)
    with pytest.raises(ConfigError, match="have other classes"):
        probe(TEST, other)
    with pytest.raises(ConfigError, match="one or more different numbers"):
        probe(TEST, TRAIN, seeds=(1, 1))
    with pytest.raises(ConfigError, match="validation_share is 1"):
        probe(TEST, TRAIN, validation_share=1.0)
    with pytest.raises(ConfigError, match="weight_decay is 0"):
        probe(TEST, TRAIN, weight_decay=0)


def test_the_sweep_finds_what_the_whole_grid_finds() -> None:
    features, labels = TRAIN[1].features, torch.tensor(TRAIN[0].labels)
    problem = ProbeProblem(features, labels, 6)
    targets = torch.tensor(VALIDATION[0].labels)
    ticks: list[int] = []
    sweep = choose_decay(problem, VALIDATION[1].features, targets, tick=lambda: ticks.append(1))
    assert len(ticks) == len(sweep.trials) <= 14
    assert [trial.decay for trial in sweep.trials] == sorted(trial.decay for trial in sweep.trials)
    probes: dict[int, Any] = {}
    right = []
    for place in reversed(range(24, len(DECAYS))):
        probes = {place: problem.fit(DECAYS[place] * problem.spread, start=nearest(probes, place), tolerance=1e-8)}
        right.append(int((probes[place].scores(VALIDATION[1].features).argmax(1) == targets).sum()))
    assert sweep.best.score >= (max(right) - 1) / len(targets)
    assert not sweep.at_edge
    scaled = choose_decay(ProbeProblem(7 * features, labels, 6), 7 * VALIDATION[1].features, targets)
    assert scaled.best.score == sweep.best.score
    assert scaled.best.decay == pytest.approx(49 * sweep.best.decay)


def test_one_run_by_itself() -> None:
    train, test = (
        Split(images.features, torch.tensor(dataset.labels), [sample.key for sample in dataset.samples])
        for dataset, images in (TRAIN, TEST)
    )
    names = TRAIN[0].classnames
    run = run_probe(0, train, None, test, names, None, 1e-2, 0.2, torch.device("cpu"))
    assert torch.equal(run.scores, run.probe.scores(test.features))
    assert run.learnt_from == 240
