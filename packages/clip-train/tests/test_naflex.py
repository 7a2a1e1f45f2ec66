"""Training on pictures of any shape: which samples a step has, going on, evaluation, and what is refused."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

import clip_core
from clip_core.convert.naflex import to_naflex_config
from clip_core.errors import ConfigError
from clip_core.preprocess_naflex import build_patch_transform, stack_patches
from clip_core.presets.parts import model, text_tower
from clip_core.presets.vit import image_tower
from clip_train import TrainConfig, train
from clip_train.checkpoint import published
from clip_train.checkpoint.resume import Origin
from clip_train.config import AugmentConfig, FlexConfig
from clip_train.data.batching import Form
from clip_train.data.decode import Batch, sample_digest
from clip_train.data.loader import Share, StepDataset
from clip_train.data.naflex import flex_batching, require_possible
from clip_train.data.order import Order
from clip_train.measuring.speed import count_cost
from clip_train.plan import prepare
from clip_train.world import World

Make = Callable[..., TrainConfig]
SAMPLES = 40
SMALLEST = model(16, image_tower(32, 16, 16, 1, 2, 32), text_tower(8, 2, 1, context_length=32))
# 32, 12 and 8 samples a step.
FLEX: dict[str, Any] = {
    "use_naflex": True,
    "naflex_seq_lens": (4, 9, 16),
    "naflex_max_tokens_per_batch": 128,
    "naflex_batch_divisor": 4,
}


@pytest.fixture(autouse=True)
def smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(clip_core.presets._PRESETS, "tiny", SMALLEST)


def picture(number: int) -> bytes:
    draw = np.random.default_rng(number)
    height, width = draw.integers(20, 90, 2)
    buffer = io.BytesIO()
    # One colour, which the caption names, so that there is something to learn.
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., number % 3] = 255
    PIL.Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pictures(make: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A shard of pictures of all shapes."""
    samples = [
        {"__key__": f"s{n:04d}", "png": picture(n), "txt": f"{('red', 'green', 'blue')[n % 3]} {n}".encode()}
        for n in range(SAMPLES)
    ]
    return str(make.shard(tmp_path_factory.mktemp("pictures") / "a.tar", samples))


@pytest.fixture
def make_flex(make_config: Make, pictures: str) -> Make:
    return lambda **fields: make_config(**{**FLEX, "train_data": pictures, "epochs": 3, **fields})


def records(folder: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def said(folder: Path) -> list[tuple[Any, ...]]:
    """What records say of the training, and not of the clock."""
    names = ("step", "epoch", "batch", "samples_seen", "seq_len", "patch_size", "loss", "lr", "grad_norm", "samples")
    return [tuple(record[name] for name in names) for record in records(folder)]


def test_every_sample_comes_once_in_an_epoch_in_batches_that_fit_the_budget(make_flex: Make) -> None:
    result = train(make_flex(name="mine", naflex_patch_sizes=(8, 16), workers=1))
    found, order = records(result.folder), Order(0, SAMPLES)
    sizes = {4: 32, 9: 12, 16: 8}
    begins = 0
    for record in found:
        assert record["batch"] == sizes[record["seq_len"]]
        slots = [order.sample(*divmod(slot, SAMPLES)) for slot in range(begins, begins + record["batch"])]
        # The line of slots goes through the permutations of all epochs, so every sample has its turn in each.
        assert record["samples"] == f"{sum(map(sample_digest, slots)) & (1 << 64) - 1:016x}"
        assert record["epoch"] == begins // SAMPLES
        begins += record["batch"]
        assert record["samples_seen"] == begins
    assert begins - found[-1]["batch"] < 3 * SAMPLES <= begins
    assert len({record["seq_len"] for record in found}) == 3
    assert {record["patch_size"] for record in found} == {8, 16}
    assert result.samples_seen == begins
    assert TrainConfig.from_json(json.loads((result.folder / "config.json").read_text())) == result.config
    # What was trained is a NaFlex model, which reads images and patches.
    bundle = clip_core.load(result.bundle)
    patches = stack_patches([build_patch_transform(bundle.config)(picture(3))])
    assert bundle.model.encode_image(patches).shape == (1, 16)


def test_the_loss_falls(make_flex: Make) -> None:
    sizes = {"naflex_seq_lens": (4, 16), "naflex_max_tokens_per_batch": 64}
    result = train(make_flex(epochs=16, lr=1e-2, warmup=5, save_frequency=100, **sizes))
    # By chance alone the loss is the logarithm of the batch.
    below = [math.log(record["batch"]) - record["loss"] for record in records(result.folder)]
    assert sum(below[-10:]) / 10 > 0.5
    assert below[0] < 0.1


def test_going_on_at_any_step_is_the_same_to_the_bit(make_flex: Make) -> None:
    whole = train(make_flex(name="whole", save_every_n_steps=1, force_patch_dropout=0.25))
    entries = published(whole.folder / "checkpoints")
    assert len(entries) >= 2
    entry = entries[len(entries) // 2]
    again = train(make_flex(name="again", resume=str(entry.path), workers=1, force_patch_dropout=0.25))
    assert 0 < entry.step < whole.steps
    assert said(again.folder) == said(whole.folder)
    weights = [result.bundle / "model.safetensors" for result in (whole, again)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    for changed, words in (
        ({"naflex_seq_lens": (4, 9, 25)}, r"--naflex-seq-lens made them \[4, 9, 16\], and makes them \[4, 9, 25\]"),
        ({"naflex_patch_sizes": (8,)}, r"--naflex-patch-sizes made them \[16\]"),
    ):
        with pytest.raises(ConfigError, match=words):
            train(make_flex(name="other", resume=str(entry.path), **changed))
    plain = {name: getattr(FlexConfig(), name) for name in FLEX}
    with pytest.raises(ConfigError, match="was trained with --use-naflex"):
        train(make_flex(name="other", resume=str(entry.path), **plain))


def test_micro_batches_together_are_the_whole_batch(make_flex: Make) -> None:
    whole = train(make_flex(name="whole", epochs=1))
    halves = train(make_flex(name="halves", epochs=1, accum_freq=2, naflex_batch_sizes=(16, 6, 4)))
    for ours, theirs in zip(records(halves.folder), records(whole.folder), strict=True):
        assert (ours["samples"], ours["seq_len"]) == (theirs["samples"], theirs["seq_len"])
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)


def test_other_numbers_of_processes_take_the_same_steps(make_flex: Make) -> None:
    config = make_flex(naflex_loss_scale="linear", batch_size=8)
    # As a checkpoint of two processes has it.
    batching = flex_batching(config, prepare(config).bundle.config, 2)
    header = {
        "step": 5,
        "global_batch": batching.most,
        "seed": 0,
        "processes": 2,
        "batching": batching.fingerprint,
        "config": config.to_json(),
    }
    origin = Origin(Path("checkpoints/step-00000005"), header)
    for processes in (1, 4):
        adopted = origin.adopt(config, World(size=processes))
        again = flex_batching(adopted, prepare(adopted).bundle.config, processes)
        assert again.fingerprint == batching.fingerprint
        shares = [Share(again, rank, processes) for rank in range(processes)]
        for number in range(20):
            slots = [slot for share in shares for slot in share.slots(number)]
            piece = batching.piece(number)
            assert slots == list(range(piece.first, piece.first + piece.size))
        # The loss is scaled as it was.
        size = adopted.naflex.batch_sizes[0]
        assert adopted.naflex.loss_factor(size, adopted.optim.batch_size) == 32 / 8
    with pytest.raises(ConfigError, match="with 16 or 24 or 64 samples per step, which 3 processes .* can: 2 or 4"):
        origin.adopt(config, World(size=3))


@pytest.mark.parametrize(("scale", "power"), [("linear", 1.0), ("sqrt", 0.5)])
def test_the_loss_is_scaled_by_the_samples_of_a_batch(make_flex: Make, scale: str, power: float) -> None:
    fields = {"epochs": 1, "train_num_samples": 8, "batch_size": 5}
    (plain,) = records(train(make_flex(name="plain", **fields)).folder)
    (scaled,) = records(train(make_flex(name="scaled", naflex_loss_scale=scale, **fields)).folder)
    assert scaled["loss"] == plain["loss"]
    factor = (plain["batch"] / 5) ** power
    assert scaled["grad_norm"] == pytest.approx(factor * plain["grad_norm"], rel=1e-5)


def test_an_epoch_may_be_so_many_patches(make_flex: Make) -> None:
    config = make_flex(epochs=2, naflex_num_train_image_tokens=1000)
    plan = prepare(config)
    ends = [step for step in range(1, plan.total_steps + 1) if plan.epoch_ended_by(step)]
    tokens = [plan.batching.piece(number) for number in range(plan.total_steps)]
    passed = np.cumsum([piece.size * piece.form.length for piece in tokens if piece.form])
    assert ends == [int(np.searchsorted(passed, amount)) + 1 for amount in (1000, 2000)]
    assert ends[-1] == plan.total_steps
    assert plan.batching.samples(plan.total_steps) == sum(piece.size for piece in tokens)


def test_what_the_model_gets_is_what_evaluation_cuts(make_flex: Make) -> None:
    plan = prepare(make_flex(aug_cfg=AugmentConfig(scale=(1.0, 1.0), ratio=(1.0, 1.0))))
    assert plan.config.data.aug_cfg.use_timm
    data = StepDataset(plan.decoder, plan.share)
    for number in range(6):
        batch = data[number]
        assert isinstance(batch, Batch)
        form = plan.share.form(number)
        assert form is not None
        assert batch.images["patches"].dtype == torch.uint8
        transform = build_patch_transform(plan.bundle.config, form.length)
        slots = plan.share.slots(number)
        samples = [plan.decoder.order.sample(*divmod(slot, SAMPLES)) for slot in slots]
        # Without a crop, training sees what evaluation sees.
        expected = stack_patches(transform(picture(sample)) for sample in samples)
        found = plan.ready(batch).images
        for name in expected:
            assert torch.equal(found[name], expected[name]), name


def test_models_are_evaluated_on_patches_while_they_learn(make_flex: Make, make: Any, tmp_path: Path) -> None:
    folder = tmp_path / "colours"
    (folder / "test").mkdir(parents=True)
    (folder / "classnames.txt").write_text("red\ngreen\nblue\n", encoding="utf-8")
    (folder / "zeroshot_classification_templates.txt").write_text("{c}\n", encoding="utf-8")
    (folder / "test" / "nshards.txt").write_text("1", encoding="utf-8")
    samples = [{"__key__": f"s{n:04d}", "png": picture(n), "cls": str(n % 3).encode()} for n in range(12)]
    make.shard(folder / "test" / "0.tar", samples)
    given = {"epochs": 1, "val_data": make_flex().data.train_data, "eval_data": (str(folder),), "batch_size": 40}
    result = train(make_flex(**given, eval_share=1.0))
    (line,) = records(result.folder, "evaluations.jsonl")
    assert 0 <= line["colours/acc1"] <= 1
    bundle = clip_core.load(result.bundle)
    transform = build_patch_transform(bundle.config)
    with torch.no_grad():
        images = bundle.model.encode_image(stack_patches(transform(picture(n)) for n in range(SAMPLES)), True)
        captions = [f"{('red', 'green', 'blue')[n % 3]} {n}" for n in range(SAMPLES)]
        logits = bundle.model.logit_scale.exp() * images @ bundle.model.encode_text(bundle.tokenizer(captions), True).T
        right = torch.arange(SAMPLES)
        loss = (
            torch.nn.functional.cross_entropy(logits, right) + torch.nn.functional.cross_entropy(logits.T, right)
        ) / 2
    assert line["val/clip_val_loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_a_tower_that_was_made_naflex_begins_where_the_transformer_was(make_flex: Make, make_config: Make) -> None:
    plain, made = prepare(make_config()).bundle, prepare(make_config(force_naflex_vision=True)).bundle
    assert made.config.image.kind == "naflex"
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            made.model.encode_image(images), plain.model.encode_image(images), atol=1e-5, rtol=1e-4
        )
    # Without --use-naflex it learns from images of one size, as any tower.
    (record, *_) = records(train(make_config(force_naflex_vision=True, name="plain", train_num_samples=8)).folder)
    assert "seq_len" not in record


def test_the_cost_of_an_image_goes_by_its_patches(make_flex: Make) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    bundle = prepare(make_flex()).bundle
    cost = count_cost(bundle)
    patches = stack_patches([build_patch_transform(bundle.config, 25)(np.zeros((80, 80, 3), dtype=np.uint8))])
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        bundle.model.encode_image(patches)
    assert cost.of(0, 25) == pytest.approx(3 * counter.get_total_flops(), rel=1e-9)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"batch_size": 0}, "--batch-size auto cannot be together with --use-naflex"),
        ({"distill_model": "tiny", "distill_pretrained": "x"}, "--distill-model cannot be together"),
        ({"naflex_num_train_image_tokens": 100, "train_num_samples": 8}, "--train-num-samples cannot be together"),
        (
            {"naflex_max_tokens_per_batch": 16},
            "per-batch 16 .* steps of length 9 have a single sample.* lower the divisor",
        ),
        ({"naflex_batch_sizes": (8, 4, 1)}, "With --naflex-batch-sizes 8 4 1 steps of length 16 .*Give more"),
        ({"model": "RN50"}, "of kind 'modified_resnet'; allowed for NaFlex: vision transformers"),
        ({"aug_cfg": AugmentConfig(gray_scale_prob=0.5)}, "gray_scale_prob"),
        ({"naflex_seq_lens": (4, 4)}, "different numbers"),
        ({"naflex_seq_len_probs": (1.0, 2.0)}, "3 numbers, as many as there are values"),
        ({"naflex_patch_size_probs": (0.0,)}, "not all 0"),
        ({"naflex_batch_sizes": (8, 8)}, "3 numbers of 1 or more"),
        ({"use_naflex": False}, "None without use_naflex"),
    ],
)
def test_what_does_not_go_together_is_refused_in_words(make_flex: Make, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        prepare(make_flex(**fields))


def test_additions_to_an_embedding_that_is_resampled_are_refused(make_flex: Make) -> None:
    made = to_naflex_config(SMALLEST)
    for sides in ((16,), (8, 16)):
        require_possible(make_flex(lora_rank=2, lora_towers="text", naflex_patch_sizes=sides), made)
    require_possible(make_flex(lora_rank=2, naflex_patch_sizes=(16,)), made)
    with pytest.raises(ConfigError, match="--lora-rank for the image tower, with other .* is not resampled"):
        require_possible(make_flex(lora_rank=2, naflex_patch_sizes=(8, 16)), made)


def test_sizes_that_are_not_given_follow_from_the_budget() -> None:
    given = FlexConfig(use_naflex=True)
    assert given.lengths == (128, 256, 576, 784, 1024)
    assert given.batch_sizes == (128, 64, 24, 16, 16)
    assert FlexConfig(use_naflex=True, naflex_seq_lens=(2**15,)).batch_sizes == (1,)
    assert Form(16, 9) == (16, 9)


def test_weights_of_a_transformer_and_of_a_bundle_are_gone_on_with(make_flex: Make, tmp_path: Path) -> None:
    torch.manual_seed(3)
    plain = clip_core.create("tiny")
    folder = clip_core.save(plain, tmp_path / "plain")
    images = torch.randn(2, 3, 32, 32)
    begun = prepare(make_flex(pretrained=str(folder))).bundle.model
    with torch.no_grad():
        torch.testing.assert_close(begun.encode_image(images), plain.model.encode_image(images), atol=1e-5, rtol=1e-4)
    result = train(make_flex(epochs=1))
    again = prepare(make_flex(pretrained=str(result.bundle))).bundle.model
    weights = clip_core.load(result.bundle).model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in again.state_dict().items())
