"""How the model is spread over the processes: replicas whose gradients are averaged (DDP).

The model itself knows nothing of it. What this room leaves out: meeting the other processes (`world`).
"""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from clip_train.config import ParallelConfig
from clip_train.world import World

__all__ = ["spread"]


def spread(model: nn.Module, config: ParallelConfig, world: World) -> nn.Module:
    """What the loop calls in place of `model`, whose parameters stay where they are; alone: `model` itself."""
    if world.size == 1:
        return model
    device_ids = [world.device.index] if world.device.type == "cuda" else None
    return DistributedDataParallel(
        model,
        device_ids=device_ids,
        static_graph=config.ddp_static_graph,
    )
