from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import PIL.Image
import pytest
import torch
from open_clip_train.scheduler import cosine_lr

import clip_core
from clip_core.building import build
from clip_train import TrainConfig, TrainingDiverged, initial
from clip_train.data.loader import Share, StepDataset
from clip_train.guard import MOST_IN_A_ROW
from clip_train.loss import ContrastiveLoss
from clip_train.plan import Plan, prepare
from clip_train.trainer import Fit, Running, fit, start

pytestmark = pytest.mark.parity

Make = Callable[..., TrainConfig]


def run(plan: Plan) -> tuple[list[dict[str, Any]], Fit]:
    records: list[dict[str, Any]] = []
    running = start(plan, record=records.append)
    fit(running)
    return records, running.state


def peer_of(plan: Plan) -> Any:
    """open_clip's own model of the same size with the same weights."""
    config = plan.bundle.config
    model = open_clip.CLIP(
        embed_dim=config.embed_dim,
        vision_cfg=open_clip.CLIPVisionCfg(
            layers=config.image.layers,
            width=config.image.width,
            head_width=config.image.width // config.image.heads,
            patch_size=config.image.patch_size,
            image_size=config.image.image_size,
        ),
        text_cfg=open_clip.CLIPTextCfg(
            context_length=config.text.context_length,
            width=config.text.width,
            heads=config.text.heads,
            layers=config.text.layers,
        ),
    )
    model.load_state_dict(plan.bundle.model.state_dict(), strict=True)
    return model.train()


def test_training_is_that_of_open_clip(make_config: Make) -> None:
    plan = prepare(make_config(lr=1e-3, wd=0.2, warmup=2, grad_clip_norm=1.0, batch_size=8))
    config, total = plan.config.optim, plan.total_steps
    theirs = peer_of(plan)
    # open_clip_train.main's rule for the two groups, on open_clip's own names.
    exclude = [
        n
        for n, p in theirs.named_parameters()
        if p.ndim < 2 or any(x in n for x in ("bn", "ln", "bias", "logit_scale"))
    ]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for n, p in theirs.named_parameters() if n in exclude], "weight_decay": 0.0},
            {"params": [p for n, p in theirs.named_parameters() if n not in exclude], "weight_decay": config.wd},
        ],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
    )
    schedule = cosine_lr(optimizer, config.lr, config.warmup, total)
    loss_of = open_clip.ClipLoss()
    expected = []
    data = StepDataset(plan.decoder, plan.share)
    for step in range(total):
        batch = data[step]
        assert not isinstance(batch, Exception)
        tokens = torch.zeros(len(batch.tokens), theirs.context_length, dtype=torch.int64)
        tokens[:, : batch.tokens.shape[1]] = batch.tokens
        rate = schedule(step)
        optimizer.zero_grad()
        image_features, text_features, scale = theirs(plan.ready(batch).images, tokens)
        loss = loss_of(image_features, text_features, scale)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            theirs.logit_scale.clamp_(0, math.log(100))
        expected.append((loss.item(), norm.item(), rate, scale.item()))
        if step == 0:
            first = {name: parameter.grad.clone() for name, parameter in theirs.named_parameters()}

    once = prepare(make_config(lr=1e-3, wd=0.2, warmup=2, grad_clip_norm=1.0, batch_size=8, train_num_samples=8))
    run(once)
    for name, parameter in once.bundle.model.named_parameters():
        torch.testing.assert_close(parameter.grad, first[name], rtol=1e-4, atol=1e-6, msg=name)

    records, _ = run(plan)
    for record, (loss, norm, rate, scale) in zip(records, expected, strict=True):
        assert record["loss"] == pytest.approx(loss, rel=2e-5)
        assert record["grad_norm"] == pytest.approx(norm, rel=1e-3)
        assert (record["lr"], record["logit_scale"]) == (rate, pytest.approx(scale, rel=1e-5))
    ours = dict(plan.bundle.model.named_parameters())
    for name, parameter in theirs.named_parameters():
        # Adam divides by the gradient's own size, so a rounding of a tiny gradient moves a weight by up to lr.
        difference = (ours[name] - parameter).abs()
        assert difference.mean() < 1e-6, name
        assert difference.max() < config.lr, name


def test_siglip_is_that_of_open_clip(make_config: Make) -> None:
    plan = prepare(make_config(siglip=True, train_num_samples=8))
    model = prepare(make_config(siglip=True)).bundle.model
    batch = StepDataset(plan.decoder, Share(8))[0]
    assert not isinstance(batch, Exception)
    loss = open_clip.loss.SigLipLoss()(*model(plan.ready(batch).images, batch.tokens))
    loss.backward()
    (record,), _ = run(plan)
    assert record["loss"] == pytest.approx(loss.item(), rel=1e-5)
    ours = dict(plan.bundle.model.named_parameters())
    assert ours["logit_bias"].grad.abs() > 0
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name].grad, parameter.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_the_flags_of_open_clips_loss_change_nothing(make_config: Make) -> None:
    def losses(**fields: Any) -> list[float]:
        return [record["loss"] for record in run(prepare(make_config(**fields)))[0]]

    plain = losses()
    assert losses(local_loss=True) == losses(gather_with_grad=True) == plain
    assert losses(loss_dist_impl="ring") == plain


def test_the_model_gets_the_lengths_of_the_captions(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = prepare(make_config(batch_size=8, train_num_samples=8))
    computed: list[int] = []
    plan.bundle.model.transformer.resblocks[-1].mlp.register_forward_pre_hook(
        lambda module, inputs: computed.append(inputs[0].shape[:-1].numel())
    )
    monkeypatch.setattr("clip_core.towers.text.readable", lambda tokens: False)  # as the ids of a GPU
    run(plan)
    assert computed[0] == 8  # the last block needs the ends of the texts alone, if it knows where they are


@pytest.mark.parametrize("causal", [True, False])
def test_towers_of_whole_rows_are_trained_on_them(
    make_config: Make, monkeypatch: pytest.MonkeyPatch, causal: bool
) -> None:
    config = clip_core.get_config("tiny")  # with the text tower of SigLIP's models, or a causal one
    text = dataclasses.replace(config.text, causal=causal, pool="last")
    model = build(dataclasses.replace(config, layout="nested", text=text))
    monkeypatch.setattr(initial, "create_model", lambda *args, **rest: model)
    plan = prepare(make_config(siglip=True, batch_size=8, train_num_samples=8))
    batch = StepDataset(plan.decoder, Share(8))[0]
    assert not isinstance(batch, Exception)
    assert batch.tokens.shape == (8, config.text.context_length)
    assert int(batch.lengths.max()) < config.text.context_length
    (record,), _ = run(plan)
    assert record["updated"]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_two_runs_with_one_seed_are_equal_to_the_bit_with_any_number_of_workers(make_config: Make) -> None:
    def losses(**fields: Any) -> list[float]:
        return [record["loss"] for record in run(prepare(make_config(epochs=2, **fields)))[0]]

    first = losses(workers=0)
    torch.manual_seed(123)
    assert losses(workers=0) == first
    assert losses(workers=2) == first
    assert losses(seed=1) != first


def test_the_loss_falls(make_config: Make, make: Any, tmp_path: Path) -> None:
    colours = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "black": (0, 0, 0), "white": (255,) * 3}
    samples = []
    for number, (name, colour) in enumerate(colours.items()):
        buffer = io.BytesIO()
        PIL.Image.new("RGB", (32, 32), colour).save(buffer, format="PNG")
        samples.append({"__key__": str(number), "png": buffer.getvalue(), "txt": f"the colour {name}"})
    path = make.shard(tmp_path / "colours.tar", samples)
    records, state = run(prepare(make_config(train_data=str(path), batch_size=5, epochs=40, warmup=5)))
    assert records[0]["loss"] > 1.3
    assert records[-1]["loss"] < 0.3
    assert state.loss == records[-1]["loss"]


def test_records_follow_the_run(make_config: Make) -> None:
    plan = prepare(make_config(epochs=2, batch_size=16, train_num_samples=40))
    records, state = run(plan)
    assert [r["step"] for r in records] == [1, 2, 3, 4, 5]
    assert [r["samples_seen"] for r in records] == [16, 32, 48, 64, 80]
    assert [r["epoch"] for r in records] == [0, 0, 0, 1, 1]
    assert (state.steps, state.samples_seen, state.skipped_steps) == (5, 80, 0)
    for record in records:
        assert record["updated"]
        assert 0 <= record["data_seconds"] <= record["step_seconds"]
        assert record["samples_per_second"] == pytest.approx(16 / record["step_seconds"])


def break_loss(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """Multiplies the loss of the given calls (from 0) by NaN."""
    calls = iter(range(10**6))
    honest = ContrastiveLoss.__call__
    monkeypatch.setattr(
        ContrastiveLoss, "__call__", lambda *a: honest(*a) * (math.nan if next(calls) in steps else 1.0)
    )


def test_one_loss_that_is_not_a_number_leaves_the_weights_alone(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_loss(monkeypatch, 2)
    plan = prepare(make_config())
    weights: list[torch.Tensor] = []

    class Watch:
        votes: tuple[str, ...] = ()

        def after_step(self, running: Running, admitted: torch.Tensor) -> None:
            weights.append(torch.cat([p.detach().flatten() for p in plan.bundle.model.parameters()]))

    records: list[dict[str, Any]] = []
    running = start(plan, record=records.append)
    fit(running, [Watch()])
    state = running.state
    assert [r["updated"] for r in records] == [True, True, False, True, True]
    assert math.isnan(records[2]["loss"])
    assert torch.equal(weights[2], weights[1])
    assert not torch.equal(weights[3], weights[2])
    assert all(torch.isfinite(w).all() for w in weights)
    assert state.skipped_steps == 1


def test_the_look_at_the_end_is_a_steps_and_leaves_no_trace(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = prepare(make_config(precision="amp_bf16", batch_size=8, train_num_samples=8))
    running = start(plan)
    norm = torch.nn.BatchNorm2d(3, affine=False)
    plan.bundle.model.add_module("norm", norm)
    plan.bundle.model.register_forward_pre_hook(lambda _, given: (norm(given[0]), *given[1:]))
    cast: list[bool] = []
    norm.register_forward_pre_hook(lambda *_: cast.append(torch.is_autocast_enabled("cpu")))
    failed_together: list[object] = []
    monkeypatch.setattr(type(plan.world), "together", lambda self, work: failed_together.append(work()))
    fit(running)
    assert (running.state.steps, cast, len(failed_together)) == (1, [True, True], 1)
    assert norm.num_batches_tracked == 1


def test_a_loss_that_stays_broken_ends_the_run(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    break_loss(monkeypatch, *range(1, 100))
    plan = prepare(make_config(epochs=10))
    records: list[dict[str, Any]] = []
    with pytest.raises(TrainingDiverged, match=f"{MOST_IN_A_ROW} steps in a row"):
        fit(start(plan, record=records.append))
    assert len(records) == 1 + MOST_IN_A_ROW


def test_bfloat16_trains_with_weights_in_float32(make_config: Make) -> None:
    plan = prepare(make_config(precision="amp_bf16"))
    records, _ = run(plan)
    exact, _ = run(prepare(make_config()))
    assert {p.dtype for p in plan.bundle.model.parameters()} == {torch.float32}
    for low, full in zip(records, exact, strict=True):
        assert low["loss"] == pytest.approx(full["loss"], rel=0.02)
    assert [r["loss"] for r in records] != [r["loss"] for r in exact]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "amp_bf16"])
def test_a_gpu_trains_as_the_cpu_does(make_config: Make, precision: str) -> None:
    fields: dict[str, Any] = {"precision": precision, "grad_clip_norm": 1.0, "workers": 1}
    on_gpu, _ = run(prepare(make_config(device="cuda", **fields)))
    on_cpu, _ = run(prepare(make_config(device="cpu", **fields)))
    for here, there in zip(on_gpu, on_cpu, strict=True):
        assert here["loss"] == pytest.approx(there["loss"], rel=1e-3 if precision == "fp32" else 0.02)
