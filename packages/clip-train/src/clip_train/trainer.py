"""The loop and nothing else: batch, loss, gradient, update, record."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from clip_core import Clip
from clip_train.data.loader import iterate_batches
from clip_train.guard import FiniteGuard, TrainingDiverged
from clip_train.keyed import MODEL, mix
from clip_train.loss import ContrastiveLoss
from clip_train.metrics import SampleAccount
from clip_train.optim import build_optimizer, clamp_logit_scale, set_learning_rate
from clip_train.plan import Plan
from clip_train.precision import autocast
from clip_train.schedule import learning_rate

__all__ = ["Fit", "fit"]

_log = logging.getLogger(__name__)


@dataclasses.dataclass(slots=True)
class Fit:
    """Where a run stands; the loop keeps it up to date, so it is right also when the loop is left early."""

    steps: int = 0
    """Optimiser steps taken or skipped."""
    samples_seen: int = 0
    loss: float | None = None
    """Of the last step in which it was finite."""
    seconds: float = 0.0
    skipped_steps: int = 0
    """Steps without an update, because loss or gradient was not finite."""


def fit(
    plan: Plan,
    state: Fit,
    account: SampleAccount,
    record: Callable[[dict[str, Any]], None],
    show: Callable[[int, float], None],
) -> None:
    """Train `plan.bundle.model` in place; `state` and `account` follow every step.

    Args:
        plan: what `prepare` made.
        state: starts empty.
        account: takes the samples that were skipped or truncated.
        record: is called once per optimiser step with the values of `metrics.jsonl`.
        show: is called once per step with the number of samples and the loss, for a progress bar.

    Raises:
        TrainingDiverged: too many steps in a row were not finite, or the weights at the end give no numbers.
        DataError: the data cannot be read any more.
    """
    config, device, model = plan.config, plan.device, plan.bundle.model
    optim, precision, seed = config.optim, config.run.precision, config.run.seed
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = build_optimizer(model, optim)
    contrastive = ContrastiveLoss("siglip" if optim.siglip else "clip", optim.loss_dist_impl)
    guard = FiniteGuard()
    model.train()
    steps = range(plan.total_steps)
    batches = iterate_batches(plan.decoder, optim.batch_size, steps, workers=config.data.workers, device=device)
    start = before = time.perf_counter()
    for step in steps:
        batch = next(batches)
        account.add(batch)
        ready = time.perf_counter()
        images = batch.images.to(device, non_blocking=True)
        tokens = batch.tokens.to(device, non_blocking=True)
        rate = learning_rate(optim, step, plan.total_steps)
        set_learning_rate(optimizer, rate)
        # What the model draws itself is keyed as the data is, so nothing depends on who drew before it.
        torch.manual_seed(mix(MODEL, seed, step) >> 1)
        optimizer.zero_grad()
        with autocast(precision, device):
            output = model(images, tokens, batch.lengths.tolist())
            loss = contrastive(*output)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        values = torch.stack([loss.detach().float(), norm.float(), output.logit_scale.detach().float()]).tolist()
        loss_value, norm_value, scale = values
        updated = guard.admits(step + 1, loss_value, norm_value)
        if updated:
            if optim.grad_clip_norm is not None:
                torch.nn.utils.clip_grads_with_norm_(parameters, optim.grad_clip_norm, norm)
            optimizer.step()
            clamp_logit_scale(model.logit_scale)
            state.loss = loss_value
        now = time.perf_counter()
        state.steps = step + 1
        state.samples_seen = state.steps * optim.batch_size
        state.seconds = now - start
        state.skipped_steps = guard.skipped
        record(
            {
                "step": state.steps,
                "epoch": step * optim.batch_size // plan.samples_per_epoch,
                "samples_seen": state.samples_seen,
                "loss": loss_value,
                "updated": updated,
                "samples_per_second": optim.batch_size / (now - before),
                "lr": rate,
                "logit_scale": scale,
                "grad_norm": norm_value,
                "data_seconds": ready - before,
                "step_seconds": now - before,
                "skipped_samples": len(batch.skipped),
                "truncated_captions": len(batch.truncated),
            }
        )
        show(optim.batch_size, loss_value)
        if state.steps % config.run.log_every_n_steps == 0 or state.steps in (1, plan.total_steps):
            _log_step(plan, state, loss_value, rate, scale)
        guard.check(state.steps)
        before = now
    _check_model(model, images, tokens)


@torch.no_grad()
def _check_model(model: Clip, images: Tensor, tokens: Tensor) -> None:
    """Raise `TrainingDiverged` unless the trained weights still give numbers: finite weights may have overflowed."""
    output = model(images, tokens)
    if not (output.image_features.isfinite().all() and output.text_features.isfinite().all()):
        raise TrainingDiverged(
            "The trained weights give features that are not finite; no weights were written. Lower --lr, lengthen "
            "--warmup, or set --grad-clip-norm."
        )


def _log_step(plan: Plan, state: Fit, loss: float, rate: float, scale: float) -> None:
    speed = state.samples_seen / state.seconds
    left = (plan.total_steps - state.steps) * plan.config.optim.batch_size / speed
    _log.info(
        "step %d of %d, loss %.5g, lr %.3g, logit scale %.3f, %.0f samples/s, %.0f s left",
        state.steps,
        plan.total_steps,
        loss,
        rate,
        scale,
        speed,
        left,
    )
