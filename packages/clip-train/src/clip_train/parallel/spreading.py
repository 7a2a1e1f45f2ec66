"""How the model is spread over the processes: replicas whose gradients are averaged (DDP), or pieces (FSDP).

The model itself knows nothing of it. What this room leaves out: meeting the other processes (`world`), how it is cut
into pieces (`sharding`), and compilation (`compiling`).
"""

from __future__ import annotations

import logging

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import clip_core
from clip_core.errors import ConfigError
from clip_train.config import ParallelConfig
from clip_train.parallel.compiling import compile_blocks
from clip_train.parallel.sharding import shard
from clip_train.precision import autocast
from clip_train.world import World

__all__ = ["spread"]

_log = logging.getLogger(__name__)


def spread(model: clip_core.Clip, config: ParallelConfig, world: World, precision: str = "fp32") -> nn.Module:
    """What the loop calls in place of `model`; alone, and with --fsdp, `model` itself.

    Without --fsdp its parameters stay where they are. precision: `--precision`, under which it will be called.
    """
    if config.use_bn_sync:
        model = _share_statistics(model, world)
    compile_blocks(model, config, world.device)
    if world.size == 1:
        if config.fsdp:
            _log.warning("--fsdp: there is one process, which holds the whole model")
        return model
    if config.fsdp:
        return shard(model, config, world, mixed=_mixed(precision, world.device))
    device_ids = [world.device.index] if world.device.type == "cuda" else None
    return DistributedDataParallel(
        model,
        device_ids=device_ids,
        static_graph=config.ddp_static_graph,
    )


def _share_statistics(model: clip_core.Clip, world: World) -> clip_core.Clip:
    """The same model with batch norms whose statistics are those of all processes' images."""
    if world.size > 1 and world.device.type != "cuda":
        raise ConfigError("--use-bn-sync: torch's synchronised batch norm runs on GPUs alone. Leave the flag out.")
    if world.size == 1:
        return model
    count = sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    _log.info("%d batch norms share their statistics", count)
    shared: clip_core.Clip = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return shared


def _mixed(precision: str, device: torch.device) -> torch.dtype | None:
    """The dtype of matrix products under autocast, None without it."""
    with autocast(precision, device):
        return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
