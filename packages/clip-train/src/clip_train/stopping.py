"""Stopping on a signal, all processes after the same step: SIGTERM, SIGINT (Ctrl-C) and SIGUSR1 of a scheduler.

The first signal makes this process vote; when the vote has gone round with the next step, every process ends the loop
there, and the run is saved as always when it stops. A second signal ends the process at once. What this room leaves
out: saving (`checkpoint`), and processes that hang (`watchdog`).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from torch import Tensor

from clip_core.errors import ClipError
from clip_train.exit_codes import STOPPED
from clip_train.trainer import Running

__all__ = ["Stopped", "Stopping", "how_to_go_on"]

_log = logging.getLogger(__name__)

_NAMES = ("SIGTERM", "SIGINT", "SIGUSR1")
_VOTE = "stop"
# A launcher passes on what its processes have got already: Ctrl-C in a terminal reaches all, torchrun sends one more.
_ECHO_SECONDS = 5.0


class Stopped(ClipError):
    """A signal ended the run before its end; says where it stands and how it goes on."""

    exit_code = STOPPED


class Stopping:
    """A service that ends the loop when a signal asks for it; a context manager, around the loop.

    It comes before the service that saves. Outside of the main thread, where Python handles no signals, it does nothing
    but take part in the vote.
    """

    votes: tuple[str, ...] = (_VOTE,)

    def __init__(
        self,
        *,
        seconds: float,
        end: Callable[[int], object] = os._exit,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Args:
        seconds: from the signal until the process ends by force, where it has not ended by itself.
        end: ends the process with an exit code, at once.
        environment: says which launcher there is.
        """
        self.by: str | None = None
        """The signal that this process got, or "another process"; None: the run was not stopped."""
        self.at = 0.0
        """When the signal came, by `time.monotonic`."""
        self._seconds = seconds
        self._end = end
        self._echo = _ECHO_SECONDS if _launched(environment) else 0.0
        self._asked: str | None = None
        self._timer: threading.Timer | None = None
        self._before: dict[signal.Signals, object] = {}
        self._sockets: tuple[socket.socket, socket.socket] | None = None
        self._thread: threading.Thread | None = None

    def after_step(self, running: Running, admitted: Tensor) -> None:
        """Vote where a signal came, and stop where any process has voted."""
        if self._asked is not None:
            running.votes[_VOTE] = True
        if _VOTE in running.agreed and not running.stop:
            running.stop = True
            self.by = self._asked or "another process"
            _log.warning("stopping after step %d: %s", running.state.steps, self.by)

    def __enter__(self) -> Stopping:
        if threading.current_thread() is not threading.main_thread():
            return self
        # A process that waits in a call of torch runs no handler of Python. The handler below Python's writes to this
        # descriptor, and a thread reads it.
        reader, writer = self._sockets = socket.socketpair()
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for name in _NAMES:
            number = getattr(signal, name, None)
            if number is not None:
                self._before[number] = signal.signal(number, _nothing)
        self._thread = threading.Thread(target=self._listen, args=(reader,), name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sockets is None or self._thread is None:
            return
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        reader, writer = self._sockets
        # Closing would not end the thread's wait: forked data workers hold the descriptor, too.
        writer.shutdown(socket.SHUT_RDWR)
        writer.close()
        self._thread.join()
        reader.close()
        if self._timer is not None:
            self._timer.cancel()

    def _listen(self, reader: socket.socket) -> None:
        while received := reader.recv(64):
            for number in received:
                if number in self._before:
                    self._take(signal.Signals(number))

    def _take(self, number: signal.Signals) -> None:
        if self._asked is None:
            self._asked, self.at = number.name, time.monotonic()
            _log.warning(
                "%s: stopping after the next steps, and saving; %g s until this process ends by force, another signal "
                "ends it at once",
                number.name,
                self._seconds,
            )
            self._timer = threading.Timer(self._seconds, self._end_by_force)
            self._timer.daemon = True
            self._timer.start()
        elif time.monotonic() - self.at >= self._echo:
            _log.error("%s again: ended at once, nothing more is saved", number.name)
            self._end(128 + number)

    def _end_by_force(self) -> None:
        _log.error("not stopped within %g s of %s (--stop-seconds): ended by force", self._seconds, self._asked)
        self._end(STOPPED)


def how_to_go_on(environment: Mapping[str, str] = os.environ) -> str:
    """What starts a stopped run again, where it runs."""
    job = environment.get("SLURM_JOB_ID")
    if job is None:
        return "The same command with --resume latest goes on."
    return f"With --resume latest in its command the job goes on by: scontrol requeue {job}"


def _launched(environment: Mapping[str, str]) -> bool:
    return any(name in environment for name in ("TORCHELASTIC_RUN_ID", "SLURM_PROCID", "RANK"))


def _nothing(number: int, frame: object) -> None:
    # Python has to have a handler, or the system would end the process.
    pass
