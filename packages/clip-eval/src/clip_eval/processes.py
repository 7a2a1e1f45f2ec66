"""Several processes at one evaluation: how they are found, what they send each other, and how they end together.

Everything travels between CPUs over gloo, so that it works beside NCCL and without a GPU. What is shared: rows of
tensors, short texts, and errors; an error of one process becomes an error of all, because one that waits for another
that has given up would wait for ever. What is not here: who encodes what (`spread`).
"""

from __future__ import annotations

import ctypes
import datetime
import os
import re
import traceback
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from clip_core import errors
from clip_core.errors import ClipError, ConfigError

__all__ = ["LostProcess", "Place", "Ranks", "find_place", "leave"]

_T = TypeVar("_T")


class LostProcess(ClipError):
    """Another process of the evaluation has ended or does not answer, so this one cannot go on."""


class Place:
    """Where this process stands among those that were started together, and where they meet."""

    __slots__ = ("address", "local_rank", "port", "rank", "size")

    def __init__(self, rank: int, size: int, local_rank: int, address: str = "", port: int = 0) -> None:
        if not 0 <= rank < size or local_rank < 0:
            raise ConfigError(
                f"The environment says that this is process {rank} of {size}, number {local_rank} on its machine; "
                "allowed: 0 to the number of processes, not included. Start the processes with torchrun or srun."
            )
        self.rank, self.size, self.local_rank, self.address, self.port = rank, size, local_rank, address, port


def find_place(environment: Mapping[str, str] | None = None) -> Place:
    """The place that torchrun (RANK, WORLD_SIZE, ...) or SLURM's srun (SLURM_PROCID, ...) gave this process.

    Of SLURM the numbers of the step are read, not those of the job: a batch script that calls python without srun is
    one process, however many tasks the job has. Alone where nothing is said.

    Raises:
        ConfigError: what is said is not a number, does not fit, or is said by halves.
    """
    said = os.environ if environment is None else environment
    if "RANK" not in said and _number(said, "WORLD_SIZE", 1) > 1:
        raise ConfigError(
            f"The environment has WORLD_SIZE={said['WORLD_SIZE']} and no RANK, so that many processes would each think "
            "that they are alone. Start them with torchrun or srun, or take WORLD_SIZE out."
        )
    if "RANK" in said and "WORLD_SIZE" in said:
        rank = _number(said, "RANK")
        port = _number(said, "MASTER_PORT", 29500)
        local = _number(said, "LOCAL_RANK", rank)
        return Place(rank, _number(said, "WORLD_SIZE"), local, said.get("MASTER_ADDR", "127.0.0.1"), port)
    if "SLURM_PROCID" in said and "SLURM_STEP_NUM_TASKS" in said:
        # Steps of one job may run side by side on one machine, so each needs a port of its own.
        own = 20_000 + (31 * _number(said, "SLURM_JOB_ID", 0) + _number(said, "SLURM_STEP_ID", 0)) % 20_000
        nodes = said.get("SLURM_STEP_NODELIST", "127.0.0.1")
        return Place(
            _number(said, "SLURM_PROCID"),
            _number(said, "SLURM_STEP_NUM_TASKS"),
            _number(said, "SLURM_LOCALID", 0),
            said.get("MASTER_ADDR", _first_node(nodes)),
            _number(said, "MASTER_PORT", own),
        )
    return Place(0, 1, 0)


class Ranks:
    """The processes of one evaluation; by default this one alone.

    Every method with several processes must be called by all of them, in the same order.

    Attributes:
        rank: which one this is, from 0.
        size: how many there are.
        local_rank: which one on its machine, so which GPU.
    """

    def __init__(
        self, rank: int = 0, size: int = 1, local_rank: int = 0, group: dist.ProcessGroup | None = None
    ) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self._group = group
        self._joined = False

    @classmethod
    def join(cls, *, timeout_seconds: float = 1800.0) -> Ranks:
        """The processes that torchrun or srun started together, or those that have joined already (clip-train's).

        timeout_seconds: how long one process waits for another; the slowest shard has to fit into it.

        Raises:
            ConfigError: the environment contradicts itself.
            LostProcess: the others do not come.
        """
        timeout = datetime.timedelta(seconds=timeout_seconds)
        if dist.is_available() and dist.is_initialized():
            size, rank = dist.get_world_size(), dist.get_rank()
            if size == 1:
                return cls()
            group = dist.new_group(backend="gloo", timeout=timeout)
            assert isinstance(group, dist.ProcessGroup)  # this process is one of them all
            return cls(rank, size, find_place().local_rank, group)
        place = find_place()
        if place.size == 1:
            return cls(local_rank=place.local_rank)
        try:
            dist.init_process_group(
                "gloo",
                init_method=f"tcp://{place.address}:{place.port}",
                rank=place.rank,
                world_size=place.size,
                timeout=timeout,
            )
        except (RuntimeError, ValueError) as error:
            raise LostProcess(
                f"Process {place.rank} of {place.size} could not meet the others at {place.address}:{place.port} "
                f"({_first_line(error)}). Check that all of them were started and can reach that address."
            ) from error
        ranks = cls(place.rank, place.size, place.local_rank)
        ranks._joined = True
        return ranks

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and shows."""
        return self.rank == 0

    def close(self) -> None:
        """Leave the processes that `join` made a group of; does nothing for a group that others made."""
        if self._joined:
            self._joined = False
            leave()

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def gather(self, rows: Tensor) -> list[Tensor]:
        """`rows` (n, ...) on the CPU of every process, by rank; n may differ, 0 included, all else is equal."""
        if self.size == 1:
            return [rows]
        counts = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        self._call(lambda: dist.all_gather(counts, torch.tensor([len(rows)]), group=self._group))
        most = max(int(count) for count in counts)
        if most == 0:
            return [rows] * self.size
        padded = rows.new_zeros((most, *rows.shape[1:]))
        padded[: len(rows)] = rows
        wholes = [torch.empty_like(padded) for _ in range(self.size)]
        self._call(lambda: dist.all_gather(wholes, padded, group=self._group))
        return [whole[: int(count)] for whole, count in zip(wholes, counts, strict=True)]

    def gather_text(self, text: str) -> list[str]:
        """`text` of every process, by rank."""
        # A lone surrogate may stand in a file's name, and so in a message.
        data = torch.tensor(list(text.encode("utf-8", "surrogatepass")), dtype=torch.uint8)
        return [bytes(part.tolist()).decode("utf-8", "surrogatepass") for part in self.gather(data)]

    def from_first(self, rows: Tensor) -> Tensor:
        """`rows` of process 0; the others hand in any tensor of the same dtype and shape but for its first size."""
        return rows if self.size == 1 else self.gather(rows if self.first else rows[:0])[0]

    def text_from_first(self, text: str) -> str:
        """`text` of process 0."""
        return self.gather_text(text if self.first else "")[0]

    def together(self, work: Callable[[], _T]) -> _T:
        """What `work` gives here, once it has ended well in every process.

        Raises:
            Exception: what `work` raised here, or else an error of the same class with the message and the number of
                the first process in which it failed.
        """
        if self.size == 1:
            return work()
        try:
            result = work()
        except Exception as error:
            self.gather_text(f"{type(error).__name__}\n{_message(error)}")
            raise
        for rank, fault in enumerate(self.gather_text("")):
            if fault:
                name, _, message = fault.partition("\n")
                kind = getattr(errors, name, None)
                if isinstance(kind, type) and issubclass(kind, ClipError):
                    raise kind(f"{message} (In process {rank} of {self.size}.)")
                raise RuntimeError(f"Process {rank} of {self.size} failed with {name}: {message}")
        return result

    def agree(self, what: str, value: str) -> None:
        """Raises `ConfigError` in every process unless all of them hand in the same `value`."""
        values = self.gather_text(value)
        other = next((rank for rank, held in enumerate(values) if held != values[0]), None)
        if other is not None:
            raise ConfigError(
                f"Processes 0 and {other} of {self.size} disagree about {what}: {values[0]} and {values[other]}. All "
                "of them must evaluate the same model on the same data with the same settings."
            )

    def _call(self, exchange: Callable[[], object]) -> None:
        try:
            exchange()
        except RuntimeError as error:
            raise LostProcess(
                f"Process {self.rank} of {self.size} waited for another one in vain: {_first_line(error)}. One of them "
                "was ended or hangs; its own output says why. Features that are in the store stay there."
            ) from error


def leave() -> None:
    """Part from the processes that torch.distributed has met; to be called instead of its `destroy_process_group`."""
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 8):
        # There the end of a gloo group waits for its threads and holds Python's lock, which a thread may want in order
        # to let go of the last tensors: both wait for ever. A group that is never ended costs two idle threads.
        for group in dist.distributed_c10d._world.pg_map:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))
    dist.destroy_process_group()


def _message(error: Exception) -> str:
    if isinstance(error, ClipError):
        return str(error)
    return "".join(traceback.format_exception(error))


def _first_line(error: Exception) -> str:
    """What gloo says, without its source file and its wishes."""
    said = re.sub(r"^\[[^\]]*:\d+\] ", "", str(error)).partition(" This is typically")[0]
    return said.splitlines()[0].rstrip(".") if said.strip() else type(error).__name__


def _number(said: Mapping[str, str], name: str, default: int | None = None) -> int:
    value = said.get(name)
    if value is None and default is not None:
        return default
    try:
        return int(value or "")
    except ValueError:
        raise ConfigError(f"The environment variable {name} is {value!r}; allowed: a whole number.") from None


def _first_node(nodes: str) -> str:
    """The first name in SLURM's short form: "gpu[017-019,23],cpu1" gives gpu017."""
    match = re.match(r"([^,\[]+)(?:\[([0-9]+)[^\]]*\]([^,\[]*))?", nodes)
    if match is None:
        raise ConfigError(f"SLURM_STEP_NODELIST is {nodes!r}; allowed: names of machines. Set MASTER_ADDR instead.")
    return "".join(part or "" for part in match.groups())
