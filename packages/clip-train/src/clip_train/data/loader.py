"""Batches by number, decoded ahead of time by torch's DataLoader, or by threads.

The sampler hands out numbers and a batch is a pure function of its number, so the loader carries no state and
starts anywhere. Workers run through all epochs without a stop in between.

Workers are forked on Linux, whatever this version of Python prefers (3.14: forkserver): they start in no time, share
the index of the data, and a script needs no `if __name__ == "__main__":`. Forking a process with threads can leave a
lock held for ever in the child; a worker takes none that another thread could have held: it runs PIL, the tokenizer
and torch on one thread of the CPU, and touches neither the GPU nor a progress bar. Elsewhere forking is not safe or
not there, so workers are spawned, and everything they get pickles.

What this room leaves out: what is in a batch (`decode`), how threads are led (`threads`), and logging: a batch brings
its own account.
"""

from __future__ import annotations

import contextlib
import copy
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from clip_core.errors import ClipError, ConfigError
from clip_train.data.batching import Batching, EvenBatching, Form
from clip_train.data.decode import Batch, Decoder
from clip_train.data.images import each
from clip_train.data.replacing import WorkerDied, leave_dead_workers_to_us, replace_dead_workers
from clip_train.data.threads import AHEAD, in_threads

__all__ = ["Share", "StepDataset", "WorkerDied", "explain_dead_workers", "iterate_batches", "require_thread_safe"]


class Share:
    """Which slots of the run's one line this process fills: an equal stretch of every micro-batch.

    The slots of a step stand in a row whatever the number of processes, so that a global batch is the same set.
    """

    def __init__(self, batching: Batching | int, rank: int = 0, ranks: int = 1) -> None:
        """`batching` is that of all processes, which divide each of its micro-batches; a number: all have that size."""
        self.batching = EvenBatching(batching) if isinstance(batching, int) else batching
        self.rank = rank
        self.ranks = ranks

    @property
    def most(self) -> int:
        """Samples of this process in one micro-batch at most."""
        return self.batching.most // (self.batching.accumulated * self.ranks)

    @property
    def fullest(self) -> int:
        """Of images of the largest form so many take as much room as those of any micro-batch."""
        return -(-self.batching.fullest // (self.batching.accumulated * self.ranks))

    def slots(self, number: int) -> range:
        """Those of micro-batch `number`, counted from the beginning of the run."""
        piece = self.batching.piece(number)
        size = piece.size // self.ranks
        first = piece.first + self.rank * size
        return range(first, first + size)

    def form(self, number: int) -> Form | None:
        """How the images of micro-batch `number` are cut; None where all of the run have one size."""
        return self.batching.piece(number).form


class StepDataset(Dataset[Batch | ClipError]):
    """Number of a micro-batch (from 0) -> the batch, or the error that kept it from being made.

    An error travels as a value: torch would bury its words in a traceback of the worker.
    """

    def __init__(self, decoder: Decoder, share: Share, go_on: Callable[[], None] | None = None) -> None:
        """`go_on` is called before each sample; what it raises ends the batch."""
        self.decoder = decoder
        self.share = share
        self._go_on = go_on

    def __getitem__(self, number: int) -> Batch | ClipError:
        form, slots = self.share.form(number), self._slots(number)
        try:
            return self.decoder.batch(slots) if form is None else self.decoder.batch_of(form, slots)
        except ClipError as error:
            return error

    def _slots(self, number: int) -> Iterator[tuple[int, int]]:
        for slot in self.share.slots(number):
            if self._go_on is not None:
                self._go_on()
            yield divmod(slot, self.decoder.order.count)


def iterate_batches(
    decoder: Decoder,
    share: Share,
    numbers: range,
    *,
    workers: int,
    device: torch.device,
    kind: Literal["process", "thread"] = "process",
) -> Iterator[Batch]:
    """The micro-batches `numbers`, in order, read ahead by `workers` of this kind (0: read when asked for).

    Batches are in pinned memory where `device` is a GPU. A process that dies is replaced. Raises what `Decoder.batch`
    raises, `WorkerDied` when a process does not even start, or when they die again and again, and `ConfigError` for
    threads where pictures draw from the global generators.
    """
    if workers and kind == "thread":
        require_thread_safe(decoder)
        return _iterate_threads(decoder, share, numbers, workers=workers, device=device)

    def make(rest: range) -> Iterator[Batch]:
        return _iterate(decoder, share, rest, workers=workers, device=device)

    return replace_dead_workers(make, numbers) if workers else make(numbers)


def require_thread_safe(decoder: Decoder) -> None:
    """Raise `ConfigError` where threads would mix up what they draw."""
    if not decoder.pixels.thread_safe:
        raise ConfigError(
            "--worker-kind thread: timm's augmentation (--aug-cfg use_timm=True, --use-naflex) draws from generators "
            "that all threads of a process share. Leave it out, or take --worker-kind process."
        )


def _iterate_threads(
    decoder: Decoder, share: Share, numbers: range, *, workers: int, device: torch.device
) -> Iterator[Batch]:
    is_gpu = device.type == "cuda"
    # A thread begins on the first GPU, and would take memory of it.
    own = device.index if not is_gpu or device.index is not None else torch.cuda.current_device()
    local = threading.local()

    def make(number: int, go_on: Callable[[], None]) -> Batch | ClipError:
        if not hasattr(local, "data"):
            # An order keeps what it worked out last, each thread for itself.
            mine = copy.copy(decoder)
            mine.order = copy.copy(decoder.order)
            local.data = StepDataset(mine, share, go_on)
        batch = local.data[number]
        return _pinned(batch) if is_gpu and not isinstance(batch, ClipError) else batch

    def start() -> None:
        if is_gpu:
            torch.cuda.set_device(own)

    yield from map(_or_raise, in_threads(make, numbers, threads=workers, start=start))


def _pinned(batch: Batch) -> Batch:
    return batch._replace(images=each(batch.images, Tensor.pin_memory), tokens=batch.tokens.pin_memory())


def _or_raise(batch: Batch | ClipError) -> Batch:
    if isinstance(batch, ClipError):
        raise batch
    return batch


def _iterate(decoder: Decoder, share: Share, numbers: range, *, workers: int, device: torch.device) -> Iterator[Batch]:
    with warnings.catch_warnings():
        # More workers than cores may be what is wanted, and --workers has open_clip's default; the log says it.
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        loader: DataLoader[Batch | ClipError] = DataLoader(
            StepDataset(decoder, share),
            batch_size=None,
            sampler=numbers,
            num_workers=workers,
            collate_fn=_as_is,  # type: ignore[arg-type]  # without a batch size it gets one batch, not a list
            pin_memory=device.type == "cuda",
            prefetch_factor=AHEAD if workers else None,
            worker_init_fn=_start_worker,
            multiprocessing_context=_start_method() if workers else None,
        )
        # Python 3.12 and later warn of forking beside threads; the top of this file says why it does no harm here.
        warnings.filterwarnings("ignore", message="This process .* is multi-threaded", category=DeprecationWarning)
        try:
            batches = iter(loader)
            leave_dead_workers_to_us()
        except (EOFError, ConnectionError) as error:
            # A spawned worker that ends while it is being handed the data set breaks the pipe.
            raise WorkerDied.of(error) from error
    yield from map(_or_raise, batches)


@contextlib.contextmanager
def explain_dead_workers() -> Iterator[None]:
    """Raises `WorkerDied` for torch's RuntimeError about a worker that was killed or has left.

    Torch raises it from a signal handler, so anywhere in the loop that uses the batches: this goes around the loop.
    """
    try:
        yield
    except RuntimeError as error:
        if not re.match(r"DataLoader worker \(pid", str(error)):
            raise
        raise WorkerDied.of(error) from error


def _start_method() -> str:
    return "fork" if sys.platform == "linux" else "spawn"


def _as_is(batch: Batch | ClipError) -> Batch | ClipError:
    return batch


def _start_worker(number: int) -> None:
    # Ctrl-C reaches the whole process group; the training process alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGUSR1"):
        # So does what a scheduler sends before the time is up.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    # A forked worker has the training process's handlers, and the descriptor by which that hears of signals.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    sys.excepthook = _report


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    # The thread that hands out tensors says through this hook that the training process was interrupted while it took
    # one. That is no news, and it would stand in the middle of what the training process says.
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)
