"""Objectives against open_clip's losses on the same numbers, and over two processes against one.

Rooms: clip_train.objective.interface, clip_train.objective.contrastive, clip_train.objective.captioning,
clip_train.objective.distillation, clip_train.objective.building, clip_train.loss.distillation,
clip_train.loss.computed.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F

import clip_core
from clip_core.errors import ConfigError
from clip_train import TrainConfig, initial, train
from clip_train.config import ObjectiveConfig
from clip_train.loss.distillation import distillation_loss
from clip_train.objective import Features, build_objective, check_teacher
from clip_train.plan import prepare
from clip_train.world import World

pytestmark = pytest.mark.parity

_SPEC = importlib.util.spec_from_file_location("objective_world", Path(__file__).with_name("objective_world.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
cases = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(cases)

Make = Callable[..., TrainConfig]


def features(seed: int, width: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(6, width, dtype=torch.float64, generator=generator), dim=-1)


def test_captioning_is_that_of_open_clip_on_the_same_outputs() -> None:
    model, batch = cases.captioner().double(), cases.whole_batch(padded=True)
    config = ObjectiveConfig(coca_caption_loss_weight=1.5, coca_contrastive_loss_weight=0.5)
    objective = build_objective(config, clip_core.Bundle.of(model))
    output = model(batch.images, batch.tokens)
    peer = open_clip.loss.CoCaLoss(caption_loss_weight=1.5, clip_loss_weight=0.5, pad_id=0)
    expected = peer(*output[:2], output.caption_logits, output.caption_labels, output.logit_scale, output_dict=True)
    (contrastive,) = objective.joint(Features.of(output), {}).values()
    (caption,) = objective.own(output, batch).values()
    assert contrastive.item() == pytest.approx(expected["contrastive_loss"].item(), rel=1e-12)
    assert caption.item() == pytest.approx(expected["caption_loss"].item(), rel=1e-12)
    weights = objective.weights([batch])
    assert weights is not None
    assert weights.tolist() == [1.0]
    # What stands on padding is not learned.
    changed = output._replace(caption_logits=output.caption_logits + (output.caption_labels == 0)[..., None] * 7.0)
    moved = changed._replace(caption_logits=changed.caption_logits.roll(1, dims=-1))
    assert objective.own(changed, batch)["caption"].item() == pytest.approx(caption.item(), rel=1e-12)
    assert objective.own(moved, batch)["caption"].item() != pytest.approx(caption.item(), rel=1e-3)


def test_captions_that_are_all_padding_have_no_loss_and_no_nan() -> None:
    model, batch = cases.captioner().double(), cases.whole_batch(padded=True)
    objective = build_objective(ObjectiveConfig(), clip_core.Bundle.of(model))
    output = model(batch.images, batch.tokens)
    empty = output._replace(caption_labels=torch.zeros_like(output.caption_labels))
    assert objective.own(empty, batch)["caption"].item() == 0
    weights = objective.weights([batch._replace(tokens=torch.zeros_like(batch.tokens)), batch])
    assert weights is not None
    assert weights.tolist() == [0.0, 2.0]


def test_distillation_is_that_of_open_clip_on_the_same_features() -> None:
    student = [features(0), features(1), torch.tensor(9.0, dtype=torch.float64)]
    teacher = [features(2, 5), features(3, 5), torch.tensor(20.0, dtype=torch.float64)]
    theirs = [value.clone().requires_grad_() for value in student]
    _, expected = open_clip.loss.DistillClipLoss()(*theirs, *teacher)
    expected.backward()
    ours = [value.clone().requires_grad_() for value in student]
    loss = distillation_loss(*ours, *teacher)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for value, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(value.grad, other.grad, rtol=1e-10, atol=1e-14)


def test_a_teacher_gets_pixels_as_it_was_trained_on_them() -> None:
    student, teacher = clip_core.Bundle.of(cases.two_towers(2)), cases.two_towers(3)
    own = student.config.preprocess
    other = dataclasses.replace(own, mean=(0.5, 0.4, 0.3), std=(0.5, 0.6, 0.7))
    teacher.config = dataclasses.replace(teacher.config, preprocess=other)
    objective = build_objective(
        ObjectiveConfig(distill_model="tiny", distill_pretrained="x"), student, clip_core.Bundle.of(teacher)
    )
    batch = cases.whole_batch(padded=False)
    pixels = torch.rand(cases.PAIRS, 3, 32, 32)

    def normalised(preprocess: Any) -> torch.Tensor:
        mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (preprocess.mean, preprocess.std))
        return (pixels - mean) / std

    found = objective.cached(batch._replace(images=normalised(own)))
    with torch.no_grad():
        expected = teacher(normalised(other), batch.tokens)
    torch.testing.assert_close(found["teacher_images"], expected.image_features, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["teacher_texts"], expected.text_features)
    assert not found["teacher_images"].requires_grad


def test_a_teacher_that_reads_something_else_is_refused() -> None:
    tiny, larger, sigmoid = (clip_core.get_config(name) for name in ("tiny", "ViT-B-16", "ViT-B-16-SigLIP"))
    check_teacher(tiny, tiny)
    with pytest.raises(ConfigError, match="sees images of 224 and the model 32"):
        check_teacher(larger, tiny)
    with pytest.raises(ConfigError, match="reads the tokens of"):
        check_teacher(larger, sigmoid)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"distill_model": "tiny"}, "distill_pretrained"),
        ({"distill_pretrained": "x"}, "distill_pretrained"),
        ({"distill_model": "tiny", "distill_pretrained": "x", "siglip": True}, "siglip"),
        ({"coca_caption_loss_weight": -1.0}, "0 or more"),
        ({"coca_caption_loss_weight": 0.0, "coca_contrastive_loss_weight": 0.0}, "nothing would be learned"),
    ],
)
def test_flags_that_do_not_fit_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ObjectiveConfig(**fields)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("objectives")
    command = [sys.executable, str(Path(__file__).with_name("objective_world.py")), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", cases.NAMES)
def test_two_processes_and_accumulation_give_the_gradient_of_one_batch(
    name: str, processes: list[dict[str, Any]]
) -> None:
    expected = cases.run(name, World(), 1)
    assert {"contrastive", "visual.conv1.weight"} < set(expected)
    alone = cases.run(name, World(), 4)
    for found in (alone, *(one[f"{name} {accumulated}"] for one in processes for accumulated in (1, 2))):
        assert set(found) == set(expected)
        for key, value in expected.items():
            scale = value.abs().max().item()
            torch.testing.assert_close(found[key].double(), value.double(), rtol=0, atol=1e-9 * scale + 1e-12, msg=key)


def test_a_captioner_trains_and_its_bundle_writes_captions(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initial, "create_model", lambda *args, **rest: cases.captioner(49408))
    result = train(make_config(batch_size=2, accum_freq=2, train_num_samples=24, lr=2e-3, name="coca"))
    records = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["caption_loss"] < 0.9 * records[0]["caption_loss"]
    bundle = clip_core.load(result.bundle)
    ids = bundle.model.generate(torch.zeros(1, 3, 32, 32), max_length=8)
    assert ids.shape[0] == 1
    assert 1 < ids.shape[1] <= 8
    assert isinstance(bundle.tokenizer.decode(ids[0].tolist()), str)


def test_a_student_learns_from_a_teacher_end_to_end(make_config: Make, tmp_path: Path) -> None:
    teacher = train(make_config(name="teacher"))
    config = make_config(name="student", distill_model="tiny", distill_pretrained=str(teacher.bundle), seed=1)
    plan = prepare(config)
    assert plan.teacher is not None
    before = {name: value.clone() for name, value in plan.teacher.model.state_dict().items()}
    result = train(config)
    records = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        assert record["loss"] == pytest.approx(record["contrastive_loss"] + record["distill_loss"], rel=1e-6)
    for name, value in clip_core.load(teacher.bundle).model.state_dict().items():
        assert torch.equal(value, before[name])
