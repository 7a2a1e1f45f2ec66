"""Batches by step number, decoded ahead of time by torch's DataLoader.

The sampler hands out step numbers and a step is a pure function of its number, so the loader carries no state and
starts anywhere. Workers run through all epochs without a stop in between.
What this room leaves out: what is in a batch (`decode`), and logging: a batch brings its own account.
"""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Dataset

from clip_core.errors import ClipError
from clip_train.data.decode import Batch, Decoder

__all__ = ["StepDataset", "iterate_batches"]


class StepDataset(Dataset[Batch | ClipError]):
    """Step number (from 0) -> its batch, or the error that kept it from being made.

    An error travels as a value: torch would bury its words in a traceback of the worker.
    """

    def __init__(self, decoder: Decoder, batch_size: int) -> None:
        self.decoder = decoder
        self.batch_size = batch_size

    def __getitem__(self, step: int) -> Batch | ClipError:
        count = self.decoder.order.count
        first = step * self.batch_size
        try:
            return self.decoder.batch(divmod(slot, count) for slot in range(first, first + self.batch_size))
        except ClipError as error:
            return error


def iterate_batches(
    decoder: Decoder, batch_size: int, steps: range, *, workers: int, device: torch.device
) -> Iterator[Batch]:
    """The batches of `steps`, in order, read ahead by `workers` processes (0: read when asked for).

    Batches are in pinned memory where `device` is a GPU. Raises what `Decoder.batch` raises.
    """
    with warnings.catch_warnings():
        # More workers than cores may be what is wanted, and --workers has open_clip's default; the log says it.
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        loader: DataLoader[Batch | ClipError] = DataLoader(
            StepDataset(decoder, batch_size),
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            collate_fn=_as_is,  # type: ignore[arg-type]  # without a batch size it gets one batch, not a list
            pin_memory=device.type == "cuda",
            prefetch_factor=4 if workers else None,
            worker_init_fn=_start_worker,
        )
    for batch in loader:
        if isinstance(batch, ClipError):
            raise batch
        yield batch


def _as_is(batch: Batch | ClipError) -> Batch | ClipError:
    return batch


def _start_worker(number: int) -> None:
    # Ctrl-C reaches the whole process group; the training process alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
