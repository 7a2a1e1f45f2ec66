"""From the micro-batches of one step to the gradient of the loss of all of them.

With one micro-batch that is a forward and a backward pass. With several, features are computed without activations
first, the loss and its gradient for the features come from all pairs at once, and a second forward pass takes that
gradient into the model, one micro-batch after the other (GradCache, Gao et al. 2021). The result is that of one batch
of all pairs, to rounding; memory is that of one micro-batch, time that of one more forward pass.

Shapes: A micro-batches, b pairs in each, B = A * b. What this room leaves out: the update.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from clip_train.data.decode import Batch
from clip_train.objective import Features, Objective

__all__ = ["backward", "kept_statistics"]


def backward(
    model: nn.Module,
    objective: Objective,
    batches: Sequence[Batch],
    *,
    context: Callable[[], AbstractContextManager[object]],
    seed: Callable[[int], None],
    ready: Callable[[Batch], Batch] = lambda batch: batch,
    scale_loss: Callable[[Tensor], Tensor] = lambda loss: loss,
    mark: Callable[[str], None] = lambda stage: None,
) -> dict[str, Tensor]:
    """Add the gradient of the summed losses to the parameters of `model`; gives each loss by name, detached scalars.

    Args:
        model: takes (images, tokens, lengths) and gives a `ClipOutput` or one with more. Where it is a module of
            torch.distributed, gradients are averaged over the processes once, in the last backward pass.
        objective: what is minimised.
        batches: A micro-batches of equal size, on the model's device.
        context: the context of every forward pass (autocast).
        seed: is called with the number of a micro-batch before each forward pass of it, and makes what the model draws
            (dropout, masks) a function of that number: both passes of a micro-batch have to draw the same.
        ready: makes a batch what the model takes, before each forward pass of it: of several micro-batches only one at
            a time is held in float32.
        scale_loss: what a loss scaler does to the sum before its gradient is taken.
        mark: is called with "forward", "loss" or "backward" where such a stage ends, see `measuring.clock`.
    """
    weights = objective.weights(batches)
    if len(batches) == 1:
        batch = ready(batches[0])
        seed(0)
        with context():
            output = _forward(model, batch)
            mark("forward")
            losses = {
                **objective.joint(Features.of(output), objective.cached(batch)),
                **_weighed(objective.own(output, batch), weights, 0),
            }
            mark("loss")
            _go_backward(scale_loss(_total(losses)))
            mark("backward")
        return {name: loss.detach() for name, loss in losses.items()}
    features, extra = _features(model, objective, batches, context, seed, ready)
    mark("forward")
    leaves = Features(*(None if part is None else part.requires_grad_() for part in features))  # type: ignore[arg-type]
    with context():
        joint = objective.joint(leaves, extra)
        _go_backward(scale_loss(_total(joint)))
        mark("loss")
    losses = {name: loss.detach() for name, loss in joint.items()}
    for number, batch in enumerate(map(ready, batches)):
        last = number == len(batches) - 1
        seed(number)
        with _unsynchronised(model, not last), context():
            output = _forward(model, batch)
            mark("forward")
            rows = slice(number * len(batch.tokens), (number + 1) * len(batch.tokens))
            tensors, gradients = _handed_in(Features.of(output), leaves, rows, last=last)
            single = _weighed(objective.own(output, batch), weights, number)
            if single:
                loss = scale_loss(_total(single) / len(batches))
                tensors.append(loss)
                gradients.append(torch.ones_like(loss))
            torch.autograd.backward(tensors, gradients)
            mark("backward")
        for name, loss in single.items():
            losses[name] = losses.get(name, 0) + loss.detach() / len(batches)
    return losses


def _handed_in(found: Features, leaves: Features, rows: slice, *, last: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Tensors of one micro-batch that a gradient goes into, and the gradients.

    The scale and the bias are the same for all micro-batches, so their gradient goes in once: with the last one, in
    which torch.distributed looks for every parameter.
    """
    tensors: list[Tensor] = []
    gradients: list[Tensor] = []
    for place, (tensor, leaf) in enumerate(zip(found, leaves, strict=True)):
        if tensor is None or leaf is None or leaf.grad is None or not tensor.requires_grad:
            continue
        tensors.append(tensor)
        gradients.append(leaf.grad[rows] if place < 2 else leaf.grad if last else torch.zeros_like(leaf.grad))
    return tensors, gradients


def _weighed(losses: dict[str, Tensor], weights: Tensor | None, number: int) -> dict[str, Tensor]:
    """Each loss times the weight of micro-batch `number`."""
    if weights is None:
        return losses
    return {name: loss * weights[number].to(loss.dtype) for name, loss in losses.items()}


def _go_backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def _features(
    model: nn.Module,
    objective: Objective,
    batches: Sequence[Batch],
    context: Callable[[], AbstractContextManager[object]],
    seed: Callable[[int], None],
    ready: Callable[[Batch], Batch],
) -> tuple[Features, dict[str, Tensor]]:
    """Features of all micro-batches, and what the objective wants beside them, without activations."""
    found: list[Features] = []
    extra: list[dict[str, Tensor]] = []
    with torch.no_grad(), context(), kept_statistics(model):
        for number, batch in enumerate(map(ready, batches)):
            seed(number)
            found.append(Features.of(_forward(model, batch)))
            extra.append(objective.cached(batch))
    bias = found[0].bias
    features = Features(
        torch.cat([part.images for part in found]),
        torch.cat([part.texts for part in found]),
        found[0].scale.detach().clone(),
        None if bias is None else bias.detach().clone(),
    )
    return features, {name: torch.cat([part[name] for part in extra]) for name in extra[0]}


def _forward(model: nn.Module, batch: Batch) -> Any:
    return model(batch.images, batch.tokens, batch.lengths.tolist())


def _total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum() if len(losses) > 1 else next(iter(losses.values()))


def _unsynchronised(model: nn.Module, wanted: bool) -> AbstractContextManager[object]:
    """No averaging over the processes in this backward pass."""
    quiet = getattr(model, "no_sync", None)
    return quiet() if wanted and quiet is not None else contextlib.nullcontext()


@contextlib.contextmanager
def kept_statistics(model: nn.Module) -> Iterator[None]:
    """Batch norms see every picture twice, and shall count it once."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    kept = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            for name, buffer in norm.named_buffers():
                buffer.copy_(buffers[name])
