"""The loop and nothing else: batches, gradient, update, record.

What happens between two steps (saving, evaluating, stopping) belongs to services, which the loop calls after each step.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from clip_train.config import TrainConfig
from clip_train.data.batching import Form
from clip_train.data.decode import Batch
from clip_train.data.images import each
from clip_train.data.loader import iterate_batches
from clip_train.data.spent import Spent
from clip_train.ema import WeightAverage, averaging
from clip_train.gradients import backward, kept_statistics
from clip_train.guard import Guard, TrainingDiverged
from clip_train.keyed import MODEL, mix
from clip_train.measuring.clock import Laps, StepClock
from clip_train.metrics import SampleAccount
from clip_train.objective import Objective, build_objective
from clip_train.optim import build_optimizer, clamp_logit_scale, set_learning_rate, take_step
from clip_train.parallel import clip_gradients, compile_objective, gradient_norm, local_parts, spread
from clip_train.plan import Plan
from clip_train.precision import LossScaler, autocast
from clip_train.schedule import learning_rate

__all__ = ["Fit", "Running", "Service", "Stateful", "fit", "start"]

_log = logging.getLogger(__name__)


@dataclasses.dataclass(slots=True)
class Fit:
    """Where a run stands; the loop keeps it up to date, so it is right also when the loop is left early."""

    steps: int = 0
    """Optimiser steps taken or skipped."""
    samples_seen: int = 0
    """By all processes together."""
    loss: float | None = None
    """Of the last step in which it was finite, over the whole batch."""
    seconds: float = 0.0
    skipped_steps: int = 0
    """Steps without an update, because loss or gradient was not finite, or a spike."""
    overflowed_steps: int = 0
    """Steps without an update, because the scaled gradient was too large for float16 (--precision amp)."""
    data_offset: int = 0
    """Steps by which the data is further on than the run, which went back to a checkpoint and past bad data."""


@dataclasses.dataclass(slots=True)
class Running:
    """Everything that a run consists of while it runs; what a checkpoint has to hold is in here."""

    plan: Plan
    model: nn.Module
    """What is called: the bundle's model, spread over the processes."""
    objective: Objective
    optimizer: torch.optim.Optimizer
    guard: Guard
    account: SampleAccount
    state: Fit
    record: Callable[[dict[str, Any]], None]
    """Takes the values of `metrics.jsonl`, once per step, on every process; all but the first write nothing."""
    show: Callable[[int, float], None]
    """Takes the number of samples and the loss, once per step, for a progress bar."""
    votes: dict[str, bool] = dataclasses.field(default_factory=dict)
    """What a service of this process wants all of them to do, by name; after the next step it is in `agreed`."""
    agreed: set[str] = dataclasses.field(default_factory=set)
    """What at least one process voted for in the step that was recorded last; the same set on every process."""
    parts: dict[str, Stateful] = dataclasses.field(default_factory=dict)
    """What a checkpoint keeps beside model, optimizer, guard, account and state, by name: a loss scaler, an average."""
    at: Callable[[int, str], None] = lambda step, phase: None
    """Takes the step (from 1) and the phase, one of `watchdog.PHASES`, whenever another one begins."""
    settle: Callable[[], None] = lambda: None
    """Records every step that was taken, waiting for the device; the same on every process, or on none."""
    scaler: LossScaler | None = None
    """Of --precision amp."""
    average: WeightAverage | None = None
    """Of --ema-decay; it is taken before any service is called."""
    stop: bool = False
    """Set by a service, on every process after the same step: the loop ends."""


class Stateful(Protocol):
    """What a checkpoint can keep: dicts, lists, numbers, strings and tensors, nested as they like."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> object: ...


class Service(Protocol):
    """Something that happens beside the loop: saving, evaluating, stopping."""

    votes: tuple[str, ...]
    """Names under which it votes in `Running.votes`; the same on every process."""

    def after_step(self, running: Running, admitted: Tensor) -> None:
        """Is called after each step on every process, in the same order of services.

        admitted: boolean scalar on the device, whether the update was applied; looking at it waits for the device.
        """
        ...


def start(
    plan: Plan,
    *,
    record: Callable[[dict[str, Any]], None] = lambda values: None,
    show: Callable[[int, float], None] = lambda samples, loss: None,
) -> Running:
    """What the loop works on, at the beginning of a run."""
    config = plan.config
    scaler = LossScaler(plan.device) if config.run.precision == "amp" else None
    model = spread(plan.bundle.model, config.parallel, plan.world, config.run.precision)
    objective = build_objective(config.objective, plan.bundle, plan.teacher, plan.world)
    # Behind the spreading, so that each process holds the mean of its own pieces.
    average = averaging(plan.bundle.model, config.optim)
    return Running(
        plan=plan,
        model=model,
        objective=compile_objective(objective, config.parallel, plan.world.size),
        optimizer=build_optimizer(plan.bundle.model, config.optim),
        guard=Guard(spike=config.run.guard_spike),
        account=SampleAccount(plan.source),
        state=Fit(),
        record=record,
        show=show,
        parts={name: part for name, part in (("scaler", scaler), ("average", average)) if part is not None},
        scaler=scaler,
        average=average,
    )


def fit(running: Running, services: Sequence[Service] = ()) -> None:
    """Train from where `running` stands to the end of the run, or until a service stops it.

    Raises:
        TrainingDiverged: too many steps in a row were not finite, or the weights at the end give no numbers.
        DataError: the data cannot be read any more.
    """
    plan, state = running.plan, running.state
    running.model.train()
    running.votes = {name: False for service in services for name in service.votes}
    ledger = _Ledger(running, lag=1 if plan.device.type == "cuda" else 0)
    running.settle = ledger.settle
    clock = StepClock(plan.device)
    beside = 0.0
    before = time.perf_counter()
    micro: list[Batch] = []
    for step, micro in _steps(running):
        for batch in micro:
            running.account.add(batch)
        spent = functools.reduce(Spent.plus, (batch.spent for batch in micro))
        tokens = sum(float(batch.lengths.sum()) for batch in micro) / sum(len(batch.lengths) for batch in micro)
        ready = time.perf_counter()
        clock.start()
        running.at(step + 1, "forward and backward")
        micro = [_to_device(batch, plan.device) for batch in micro]
        clock.mark("transfer")
        admitted, names, values = _step(running, step, micro, clock.mark)
        now = time.perf_counter()
        state.steps = step + 1
        place = step + state.data_offset
        samples = plan.batching.samples(place + 1) - plan.batching.samples(place)
        form = plan.share.form(place * plan.batching.accumulated)
        state.samples_seen += samples
        state.seconds += beside + now - before
        ledger.add(
            _Entry(
                step=step,
                samples=samples,
                form=form,
                samples_seen=state.samples_seen,
                losses=names,
                values=values,
                seconds=now - before,
                waited=ready - before,
                beside=beside,
                spent=spent,
                tokens=tokens,
                laps=clock.take(),
            )
        )
        running.agreed = ledger.take_agreed()
        running.at(step + 1, "between steps")
        if running.average is not None:
            running.average.after_step(running, admitted)
        for service in services:
            service.after_step(running, admitted)
        if running.stop:
            break
        before = time.perf_counter()
        beside = before - now
    ledger.settle()
    if micro:
        plan.world.together(lambda: _check_model(plan, micro[-1]))


def _steps(running: Running) -> Iterator[tuple[int, list[Batch]]]:
    """The step (from 0) and its micro-batches from where the run stands to its end, also when it is taken back."""
    plan, state = running.plan, running.state
    accumulated = plan.config.optim.accum_freq
    while state.steps < plan.total_steps and not running.stop:
        offset = state.data_offset
        numbers = range((state.steps + offset) * accumulated, (plan.total_steps + offset) * accumulated)
        batches = iterate_batches(
            plan.decoder,
            plan.share,
            numbers,
            workers=plan.config.data.workers,
            device=plan.device,
            kind=plan.config.data.worker_kind,
        )
        for step in range(state.steps, plan.total_steps):
            running.at(step + 1, "reading data")
            yield step, [next(batches) for _ in range(accumulated)]
            if state.steps != step + 1 or state.data_offset != offset:
                break


def _step(
    running: Running, step: int, micro: Sequence[Batch], mark: Callable[[str], None]
) -> tuple[Tensor, list[str], Tensor]:
    """One update; whether it was applied, the names of the losses, and the numbers of its record, on the device."""
    plan, optimizer, scaler = running.plan, running.optimizer, running.scaler
    config, model = plan.config, plan.bundle.model
    set_learning_rate(optimizer, learning_rate(config.optim, step, plan.total_steps))
    optimizer.zero_grad()

    def seed(number: int) -> None:
        # What the model draws itself is keyed as the data is, so nothing depends on who drew before it.
        torch.manual_seed(mix(MODEL, config.run.seed, step, number, plan.world.rank) >> 1)

    losses = backward(
        running.model,
        running.objective,
        micro,
        context=lambda: autocast(config.run.precision, plan.device),
        seed=seed,
        ready=plan.ready,
        mark=mark,
        scale_loss=_scaling(config, len(micro[0].tokens), scaler),
    )
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    if scaler is not None:
        scaler.unscale(local_parts(parameter.grad for parameter in parameters if parameter.grad is not None))
    norm = gradient_norm(parameters)
    # One small message per step: the loss of the whole batch, what was lost, and what services want.
    shared = torch.tensor(
        [
            float(sum(len(batch.skipped) for batch in micro)),
            float(sum(len(batch.truncated) for batch in micro)),
            *_bytes_of(sum(batch.digest for batch in micro)),
            *(float(vote) for vote in running.votes.values()),
        ]
    ).to(plan.device, non_blocking=True)
    own = torch.stack([loss.float() for loss in losses.values()])
    running.at(step + 1, "update")
    mark("optimiser")
    shared = plan.world.sum(torch.cat([own / plan.world.size, shared]))
    mark("communication")
    loss = shared[: len(losses)].sum()
    admitted = running.guard.admits(loss, norm)
    if config.optim.grad_clip_norm is not None:
        clip_gradients(parameters, config.optim.grad_clip_norm, norm)
    scale = model.logit_scale.detach().float().exp()
    factor = torch.ones_like(scale) if scaler is None else scaler.factor
    if scaler is not None:
        scaler.update(~torch.isfinite(norm))
    take_step(optimizer, admitted)
    clamp_logit_scale(model.logit_scale)
    mark("optimiser")
    running.votes = dict.fromkeys(running.votes, False)
    numbers = torch.stack([admitted.float(), loss, norm.float(), scale, factor])
    return admitted, list(losses), torch.cat([numbers, shared])


def _scaling(config: TrainConfig, samples: int, scaler: LossScaler | None) -> Callable[[Tensor], Tensor]:
    """What is done to the loss before its gradient is taken; `samples`: of this process in a micro-batch."""
    factor = config.naflex.loss_factor(samples, config.optim.batch_size)

    def scale(loss: Tensor) -> Tensor:
        if factor != 1:
            loss = loss * factor
        return loss if scaler is None else scaler.scale(loss)

    return scale


@dataclasses.dataclass(slots=True, kw_only=True)
class _Entry:
    step: int
    samples: int
    """Of this step, of all processes."""
    samples_seen: int
    """With those of all steps before."""
    form: Form | None
    """How the images were cut."""
    losses: list[str]
    values: Tensor
    seconds: float
    waited: float
    beside: float
    """Of services, since the step before."""
    spent: Spent
    tokens: float
    """Of a caption, on average, on this process."""
    laps: Laps


class _Ledger:
    """Turns the numbers of each step into its record; on a GPU a step later, so that the program does not wait."""

    def __init__(self, running: Running, *, lag: int) -> None:
        self._running = running
        self._lag = lag
        self._waiting: deque[_Entry] = deque()
        self._agreed: set[str] = set()

    def add(self, entry: _Entry) -> None:
        """Take over a step, and record what is `lag` steps old."""
        self._waiting.append(entry)
        while len(self._waiting) > self._lag:
            self._record(self._waiting.popleft())

    def settle(self) -> None:
        """Record what is left."""
        while self._waiting:
            self._record(self._waiting.popleft())

    def take_agreed(self) -> set[str]:
        """What was voted for in the steps that were recorded since the last call."""
        taken, self._agreed = self._agreed, set()
        return taken

    def _record(self, entry: _Entry) -> None:
        running = self._running
        plan, state, guard = running.plan, running.state, running.guard
        admitted, loss, norm, scale, factor, *rest = entry.values.tolist()
        parts, (skipped, truncated, *rest) = rest[: len(entry.losses)], rest[len(entry.losses) :]
        digest, votes = rest[:8], rest[8:]
        self._agreed |= {name for name, count in zip(running.votes, votes, strict=True) if count}
        number, updated = entry.step + 1, bool(admitted)
        scaler = running.scaler
        if not updated and scaler is not None and scaler.is_overflow(loss, norm, factor):
            # The price of float16 and no sign of harm; the factor of the next step is smaller.
            state.overflowed_steps += 1
            _log.info("step %d: the gradient times %g is too large for float16; the update is skipped", number, factor)
        else:
            guard.note(number, loss, norm, updated=updated)
        if updated:
            state.loss = loss
        state.skipped_steps = guard.skipped
        rate = learning_rate(plan.config.optim, entry.step, plan.total_steps)
        running.record(
            {
                "step": number,
                "epoch": plan.epochs_before(entry.step),
                "batch": entry.samples,
                "samples_seen": entry.samples_seen,
                **({} if entry.form is None else {"seq_len": entry.form.length, "patch_size": entry.form.patch_size}),
                "loss": loss,
                **(
                    {f"{name}_loss": part for name, part in zip(entry.losses, parts, strict=True)}
                    if len(parts) > 1
                    else {}
                ),
                "updated": updated,
                "samples_per_second": entry.samples / entry.seconds,
                "lr": rate,
                "logit_scale": scale,
                "grad_norm": norm,
                **({} if scaler is None else {"loss_scale": factor}),
                "data_seconds": entry.waited,
                "step_seconds": entry.seconds,
                **_split(entry),
                "text_tokens": entry.tokens,
                "skipped_samples": int(skipped),
                "truncated_captions": int(truncated),
                "samples": _digest_of(digest),
                "data_offset": state.data_offset,
            }
        )
        running.show(entry.samples, loss)
        guard.check(number)


def _split(entry: _Entry) -> dict[str, float]:
    """Where the seconds of the step went; those of workers went beside it."""
    idle = entry.laps.idle()
    return {
        # A program that is ahead of its device may wait for data without keeping the device waiting.
        "wait_seconds": entry.waited if idle is None else min(entry.waited, idle),
        **{f"{stage}_seconds": value for stage, value in entry.laps.seconds().items()},
        "beside_seconds": entry.beside,
        **{f"{stage}_seconds": value for stage, value in entry.spent._asdict().items()},
    }


def _bytes_of(digest: int) -> list[float]:
    """The low 64 bits, a byte each: sums of so small numbers are exact in float32, for any number of processes."""
    return [float(digest >> place & 255) for place in range(0, 64, 8)]


def _digest_of(sums: Sequence[float]) -> str:
    """What all processes' `_bytes_of` add up to, in hexadecimal."""
    total = sum(int(value) << place for place, value in zip(range(0, 64, 8), sums, strict=True))
    return f"{total & (1 << 64) - 1:016x}"


def _to_device(batch: Batch, device: torch.device) -> Batch:
    # The lengths stay: the text tower packs by them, and must not wait for the device to know them.
    return batch._replace(
        images=each(batch.images, lambda value: value.to(device, non_blocking=True)),
        tokens=batch.tokens.to(device, non_blocking=True),
    )


@torch.no_grad()
def _check_model(plan: Plan, batch: Batch) -> None:
    """Raise `TrainingDiverged` unless the trained weights still give numbers: finite weights may have overflowed."""
    batch = plan.ready(batch)
    # As in a step, so that no other kernels are compiled, but this is no picture that batch norms shall count.
    with autocast(plan.config.run.precision, plan.device), kept_statistics(plan.bundle.model):
        output = plan.bundle.model(batch.images, batch.tokens, batch.lengths.tolist())
    if not (output.image_features.isfinite().all() and output.text_features.isfinite().all()):
        raise TrainingDiverged(
            "The trained weights give features that are not finite; no weights were written. Lower --lr, lengthen "
            "--warmup, or set --grad-clip-norm."
        )
