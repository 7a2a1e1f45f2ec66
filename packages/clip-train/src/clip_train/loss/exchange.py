"""What the processes of a group send each other, and how they agree that they may: every collective of the losses.

Shapes: W processes, b pairs on each. Nothing here is differentiable; the losses compute gradients themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from clip_core.errors import ConfigError

__all__ = ["Exchange", "Hop", "is_several"]


def is_several(group: dist.ProcessGroup | None) -> bool:
    """Whether `group` (None: all processes) has more than one process; False where no processes were joined.

    Raises `ConfigError` in a process that is not of the group.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return False
    if dist.get_rank(group) < 0:
        raise ConfigError(
            f"Process {dist.get_rank()} calls a loss over a group of which it is no member; allowed: the processes of "
            "the group. Hand it the group that this process belongs to."
        )
    return dist.get_world_size(group) > 1


class Hop:
    """Tensors on their way to a neighbour in the ring, and the neighbour's on their way here."""

    def __init__(self, sent: Sequence[Tensor], received: Sequence[Tensor], works: Sequence[dist.Work]) -> None:
        self._sent, self._received, self._works = sent, received, works  # what is sent must live until it is

    def wait(self) -> tuple[Tensor, ...]:
        """What arrived. On a CUDA device only its stream waits, not the program."""
        for work in self._works:
            work.wait()
        return tuple(self._received)


@dataclasses.dataclass(frozen=True, slots=True)
class Exchange:
    """One group of processes, each with the same number of pairs."""

    group: dist.ProcessGroup | None
    rank: int
    size: int

    @classmethod
    def of(cls, group: dist.ProcessGroup | None) -> Exchange:
        """That of `group`; None is all processes."""
        return cls(group, dist.get_rank(group), dist.get_world_size(group))

    def reaches(self, device: torch.device) -> bool:
        """Whether tensors on `device` can be sent in this group."""
        return f"{device.type}:" in dist.get_backend_config(self.group)

    def table(self, numbers: Sequence[int]) -> list[list[int]]:
        """`numbers` of every process, by rank.

        They travel between CPUs where the group can do that ("cpu:gloo,cuda:nccl", what `init_process_group` makes by
        default), and the device is not waited for. In a group of NCCL alone they travel between devices.
        """
        kinds = [part.split(":")[0] for part in dist.get_backend_config(self.group).split(",")]
        mine = torch.tensor([numbers], dtype=torch.int64, device="cpu" if "cpu" in kinds else kinds[0])
        found: list[list[int]] = self.gather(mine).tolist()
        return found

    def gather(self, share: Tensor) -> Tensor:
        """(b, ...) of each process -> (W * b, ...), by rank."""
        whole = share.new_empty((self.size * share.shape[0], *share.shape[1:]))
        dist.all_gather_into_tensor(whole, share.contiguous(), group=self.group)
        return whole

    def sum_of_mine(self, whole: Tensor) -> Tensor:
        """(W * b, ...) of each process -> (b, ...): the sum over all processes, of the rows that belong to this one."""
        share = whole.new_empty((whole.shape[0] // self.size, *whole.shape[1:]))
        dist.reduce_scatter_tensor(share, whole.contiguous(), group=self.group)
        return share

    def to_owners(self, whole: Tensor) -> Tensor:
        """(W, ...): item k goes to process k -> (W, ...): the item that process k had for this one, at k."""
        arrived = torch.empty_like(whole, memory_format=torch.contiguous_format)
        dist.all_to_all_single(arrived, whole.contiguous(), group=self.group)
        return arrived

    def hop(self, tensors: Sequence[Tensor], by: int, channel: int = 0) -> Hop:
        """Start to send `tensors` to the process `by` (1 or -1) further, and to receive the other neighbour's.

        Two hops that are under way at once between the same processes need channels of their own.
        """
        to, source = (self._global((self.rank + step) % self.size) for step in (by, -by))
        sent = [tensor.contiguous() for tensor in tensors]
        received = [torch.empty_like(tensor) for tensor in sent]
        operations: list[dist.P2POp] = []
        for place, (out, into) in enumerate(zip(sent, received, strict=True)):
            tag = 16 * channel + place
            operations.append(dist.P2POp(dist.isend, out, to, self.group, tag))
            operations.append(dist.P2POp(dist.irecv, into, source, self.group, tag))
        return Hop(sent, received, dist.batch_isend_irecv(operations))

    def _global(self, rank: int) -> int:
        return rank if self.group is None else dist.get_global_rank(self.group, rank)
