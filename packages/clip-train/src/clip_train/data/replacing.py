"""Data workers that die are replaced, and the batches that they had in hand are made again.

A batch is a function of its number, so nobody notices but the log. What this room leaves out: workers (`loader`).
"""

from __future__ import annotations

import logging
import re
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from clip_core.errors import ClipError

__all__ = ["MOST_IN_A_ROW", "WorkerDied", "leave_dead_workers_to_us", "replace_dead_workers"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

MOST_IN_A_ROW = 5
"""So often workers are replaced, each time within a hundred batches of the last, before the run ends."""

_NEAR = 100
_WITHOUT_A_BATCH = 2
_DEAD = re.compile(r"DataLoader worker \(pid")


class WorkerDied(ClipError):
    """A process that reads data ended without a word of its own; names what it may have been."""

    @classmethod
    def of(cls, error: BaseException) -> WorkerDied:
        """The error for what torch or Python said about it."""
        return cls(
            f"A data worker died: {error}. Likely causes: the system killed it for lack of memory (lower --workers or "
            "--batch-size), /dev/shm is full (in a container: more shared memory), or, where workers are spawned as on "
            "macOS and Windows, the script that calls clip_train.train does so outside "
            '`if __name__ == "__main__":`. With --workers 0 there are no workers.'
        )


def replace_dead_workers(make: Callable[[range], Iterator[T]], numbers: range) -> Iterator[T]:
    """What `make(numbers)` gives, which is started anew behind the last batch where one of its workers has died.

    Raises `WorkerDied` when that happens too often, and everything else that `make` raises.
    """
    given = failures = last = 0
    while True:
        batches = make(numbers[given:])
        try:
            for batch in batches:
                given += 1
                yield batch
            return
        except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
            if not _is_a_dead_worker(error):
                raise
            failures = failures + 1 if given - last < _NEAR else 1
            most = _WITHOUT_A_BATCH if given == last else MOST_IN_A_ROW
            last = given
            if failures > most:
                raise WorkerDied.of(error) from error
            _log.warning("%s; the workers are replaced, and go on with batch %d of %d", error, given + 1, len(numbers))
        # Its end stops the other workers.
        del batches


def leave_dead_workers_to_us() -> None:
    """Take back the handler by which torch raises an error wherever the program is when a worker has died.

    That would be in the middle of a step. Without it the error comes where the next batch is asked for.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        return
    handler = signal.getsignal(signal.SIGCHLD)
    if getattr(handler, "__module__", "") == "torch.utils.data._utils.signal_handling":
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _is_a_dead_worker(error: BaseException) -> bool:
    # A worker that dies after it has announced a batch takes the socket with it by which the batch would come.
    return not isinstance(error, RuntimeError) or _DEAD.match(str(error)) is not None
