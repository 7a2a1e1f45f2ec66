"""A model in pieces (FSDP2): each process keeps its part of every parameter, gradient and optimiser state.

The blocks of the towers are gathered one by one, when they are computed; what is outside of them (embeddings, first and
last layers) is a piece of its own. The scale and the bias of the logits are whole everywhere, since scalars have no
parts. All processes have to call the same modules in the same order: `gathered` is for work of which each does its own.

What this room leaves out: files (`checkpoint`), and the update, which torch does on the parts (DTensor).
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor

import clip_core
from clip_core.towers import TextTransformer
from clip_train.config import ParallelConfig
from clip_train.parallel.blocks import find_blocks
from clip_train.precision import multiply
from clip_train.world import World

__all__ = ["clip_gradients", "gathered", "gradient_norm", "is_sharded", "local_parts", "shard", "whole_weights"]

_RESHARDS: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()
"""Sharded model -> whether it frees gathered weights between the forward and the backward pass."""
_FORWARD_METHODS = ("encode_image", "encode_text", "forward_intermediates", "get_logits", "generate")


def shard(
    model: clip_core.Clip, config: ParallelConfig, world: World, *, mixed: torch.dtype | None = None
) -> nn.Module:
    """Cut `model` into pieces, in place, and return it; `mixed` is the dtype in which blocks are gathered.

    Gradients are averaged over the processes in float32 in every backward pass, so that a process never holds all of
    them. Where `mixed` is given the forward pass runs under autocast to it: a weight that is gathered in that dtype is
    what autocast would make of it. Gains of the norms inside the blocks are rounded, too. On a CPU, whose norms take no
    such gains, and in blocks with batch norms weights are gathered as they are.
    """
    scalars = {parameter for parameter in model.parameters() if parameter.ndim == 0}
    for parameter in model.parameters():
        if parameter not in scalars:
            continue
        dist.broadcast(parameter.detach(), src=0)
        if parameter.requires_grad:
            parameter.register_hook(_average)  # type: ignore[no-untyped-call]
    given: dict[str, Any] = {
        "mesh": init_device_mesh(world.device.type, (world.size,)),
        "reshard_after_forward": not config.fsdp_no_reshard_after_forward,
        # Pinned memory is that which a GPU reads by itself.
        "offload_policy": CPUOffloadPolicy(pin_memory=world.device.type == "cuda")
        if config.fsdp_offload_cpu
        else OffloadPolicy(),
        "ignored_params": scalars,
    }
    # Inputs are not cast: the residual stream stays as wide as autocast leaves it.
    wide = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    narrow = MixedPrecisionPolicy(param_dtype=mixed, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in find_blocks(model):
        fully_shard(block, mp_policy=narrow if _takes_narrow(block, world.device) else wide, **given)
    fully_shard(model, mp_policy=wide, **given)
    for name in _FORWARD_METHODS:
        if hasattr(model, name):
            register_fsdp_forward_method(model, name)
    _RESHARDS[model] = not config.fsdp_no_reshard_after_forward
    tower = model.text_tower
    if isinstance(tower, TextTransformer):
        tower.undivided = True
    return model


def _takes_narrow(block: nn.Module, device: torch.device) -> bool:
    """Whether autocast computes norms whose gains are in a lower precision than what comes in, as on GPUs."""
    return device.type == "cuda" and not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in block.modules())


def is_sharded(model: nn.Module) -> bool:
    """Whether `model` is in pieces."""
    return isinstance(model, FSDPModule)


@contextlib.contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Within it every process has the whole model, and may call it as often as it likes, for evaluation.

    All processes enter and leave it together. The weights are not to be changed within. For a model that is not in
    pieces it does nothing.
    """
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    if parts:
        # Who is asked first becomes the root of all.
        parts[0]._get_fsdp_state()._lazy_init()
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(_RESHARDS[model], recurse=False)
            part.reshard()


def whole_weights(model: nn.Module, world: World, instead: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The state of `model` in one piece, by name, on the CPU of the first process; empty on the others.

    instead: tensors of the same shapes, divided as the model's are, that are taken in place of those of their names.
    All processes call it. What is whole and on a CPU already is not copied.
    """
    for part in model.modules():
        if isinstance(part, FSDPModule):
            part.reshard()
    found: dict[str, Tensor] = {}
    for name, value in {**model.state_dict(), **(instead or {})}.items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        if world.is_first:
            found[name] = whole.detach().cpu()
    return found


def local_parts(tensors: Iterable[Tensor]) -> list[Tensor]:
    """What this process holds of each, sharing its memory: for work that goes element by element."""
    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The norm of all gradients of `parameters`, in pieces or not: a scalar, the same on every process."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm([one for one in gradients if not isinstance(one, DTensor)])
    pieces = local_parts(one for one in gradients if isinstance(one, DTensor))
    if not pieces:
        return norm
    squares = torch.nn.utils.get_total_norm(pieces).double().square()
    dist.all_reduce(squares)
    return (squares.to(norm.device) + norm.double().square()).sqrt().float()


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], most: float, norm: Tensor) -> None:
    """Make gradients whose norm is `norm` so short that it is `most`, where it is more."""
    factor = (most / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grads_with_norm_ has it
    multiply(local_parts(parameter.grad for parameter in parameters if parameter.grad is not None), factor)


def _average(gradient: Tensor) -> Tensor:
    """The mean over the processes, of what is whole on each."""
    mean = gradient / dist.get_world_size()
    dist.all_reduce(mean)
    return mean
