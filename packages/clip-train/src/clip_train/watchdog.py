"""Finds the process that hangs or died, and ends all of them with an error that names it: rank, step and phase.

Every process tells the others through the store where they met, a few times per time limit, where its training is. One
that says nothing is dead, frozen or cut off; one that speaks and gets no further hangs. Waiting for others is no fault:
blamed are those that are furthest behind. The thread of a process that hangs cannot be reached, so the process is ended
with `os._exit`; the launcher starts all again. What this room leaves out: what the launcher does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import torch.distributed as dist

from clip_core.errors import ClipError
from clip_train.exit_codes import LOST_A_PROCESS, STOPPED
from clip_train.world import PeerFailed, World

__all__ = ["BETWEEN", "LONG", "PHASES", "PREPARING", "PeerLost", "Sighting", "Watchdog", "culprits"]

_log = logging.getLogger(__name__)

PREPARING, BETWEEN = "preparing", "between steps"
PHASES = (PREPARING, "reading data", "forward and backward", "update", BETWEEN)
"""What a process does, in the order of a step."""

LONG = 10
"""So many times the limit is what preparing, the first steps, and saving and evaluating between steps may take."""

_WARM_STEPS = 3
_PLACE = ("step", "phase", "done")
_ENDED, _FAILED = "ended", "failed"
# A process that has failed says so and then closes what it has open; this is the time for that.
_LAST_WORDS = 5.0
_SILENT = "says nothing any more: it died, is frozen, or the network is cut"
_BROKEN = re.compile(r"gloo|nccl|connection|socket|broken pipe|timed? ?out|process group|peer", re.IGNORECASE)


class PeerLost(ClipError):
    """Another process hung, died or cannot be reached; names it. All have to be started again."""

    exit_code = LOST_A_PROCESS


@dataclasses.dataclass(frozen=True, slots=True)
class Sighting:
    """What is known of a process."""

    rank: int
    place: str = ""
    """Its host and process id."""
    step: int = 0
    phase: str = PREPARING
    silent: float = 0.0
    """Seconds since it last said anything."""
    stuck: float = 0.0
    """Seconds since it last said anything else."""
    done: int = 0
    """What it has done of a phase that takes long: files indexed, while preparing."""

    @property
    def where(self) -> tuple[int, int, int]:
        """How far it is, to compare."""
        return self.step, PHASES.index(self.phase) if self.phase in PHASES else len(PHASES), self.done

    def describe(self) -> str:
        """Rank, place, step, phase, and how long it has said nothing."""
        quiet = f", silent for {self.silent:.1f} s" if self.silent >= 1 else ""
        done = f", {self.done} files indexed" if self.done else ""
        place = self.place or "never seen"
        return f"process {self.rank} ({place}), last seen at step {self.step}, {self.phase}{done}{quiet}"


def culprits(sightings: Sequence[Sighting], *, seconds: float, warm_after: int) -> tuple[str, list[Sighting]]:
    """What is wrong, and with which of `sightings`; nobody where nothing is.

    Args:
        sightings: of all processes that are still at work.
        seconds: the limit of a phase of a step; others have `LONG` times that.
        warm_after: the step from which on a step is no longer one of the first.
    """
    # Whoever loads libraries and data may be kept from saying so for a while.
    silent = [one for one in sightings if one.silent > (LONG * seconds if one.phase == PREPARING else seconds)]
    if silent:
        return _SILENT, silent
    if not sightings:
        return "", []
    least = min(one.where for one in sightings)
    behind = [one for one in sightings if one.where == least]
    is_short = least[0] > warm_after and behind[0].phase not in (PREPARING, BETWEEN)
    limit = seconds if is_short else LONG * seconds
    if min(one.stuck for one in behind) > limit:
        return "gets no further", behind
    return "", []


class Watchdog:
    """Watches the processes of a world while training; a context manager. Alone, or without a limit, it is idle."""

    def __init__(self, world: World, *, seconds: float, end: Callable[[int], object] = os._exit) -> None:
        """Args:
        seconds: how long a step's phase may take, and a process may say nothing.
        end: ends the process with an exit code, at once.
        """
        self._world = world
        self._seconds = seconds
        self._end = end
        self._tick = min(1.0, seconds / 10)
        self._beat = (0, PREPARING)
        self._done = 0
        self._first_step = 0
        self._store = world.store.clone() if world.size > 1 and seconds > 0 and world.store is not None else None
        self._lock = threading.Lock()
        self._seen: dict[int, tuple[dict[str, Any], float, float]] = {}
        self._answered = self._woke = time.monotonic()
        self._own_since = time.monotonic()
        self._count = 0
        self._failure = ""
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def at(self, step: int, phase: str) -> None:
        """The training of this process is in `phase` of `step` (from 1) now."""
        if self._beat[1] == PREPARING and phase != PREPARING:
            self._first_step = step
        self._beat, self._done, self._own_since = (step, phase), 0, time.monotonic()

    def advance(self, done: int) -> None:
        """The phase takes long and goes on, so much is done. Only a standstill counts."""
        self._done, self._own_since = done, time.monotonic()

    def __enter__(self) -> Watchdog:
        if self._store is not None:
            self._store.set_timeout(timedelta(seconds=max(self._seconds, 5.0)))
            self._answered = self._woke = time.monotonic()
            for work in (self._exchange, self._judge):
                thread = threading.Thread(target=work, name=f"watchdog {work.__name__}", daemon=True)
                thread.start()
                self._threads.append(thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._store is None:
            return
        self._over.set()
        self._threads[1].join()
        # The exchange may be in a call that waits for a host that is gone.
        self._threads[0].join(timeout=self._tick * 2)
        if not self._threads[0].is_alive():
            # An interrupt, and a run that was stopped, are no failure.
            failed = isinstance(value, Exception) and getattr(value, "exit_code", None) != STOPPED
            lost = isinstance(value, PeerLost)
            self._tell({"over": _FAILED, "words": str(value), "lost": lost} if failed else {"over": _ENDED})

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Raises `PeerLost` or `PeerFailed` for torch's error about a message that did not arrive."""
        try:
            yield
        except RuntimeError as error:
            lost = self._explain(error) if self._store is not None else None
            if lost is None:
                raise
            raise lost from error

    def _tell(self, more: dict[str, Any]) -> None:
        step, phase = self._beat
        self._count += 1
        where = {"step": step, "phase": phase, "done": self._done}
        body = {"count": self._count, **where, "first": self._first_step, **_self(), **more}
        assert self._store is not None
        try:
            self._store.set(self._key(self._world.rank), json.dumps(body))
        except (RuntimeError, dist.DistError) as error:
            _log.debug("the store does not answer: %s", error)

    def _key(self, rank: int) -> str:
        # torchrun starts all anew beside the same store.
        return f"watchdog/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{rank}"

    def _exchange(self) -> None:
        """Tell where this process is and ask where the others are, for as long as the store answers."""
        assert self._store is not None
        keys = {rank: self._key(rank) for rank in range(self._world.size) if rank != self._world.rank}
        here: dict[int, str] = {}
        while not self._over.wait(self._tick / 2):
            try:
                self._tell({})
                here.update({rank: key for rank, key in keys.items() if rank not in here and self._store.check([key])})
                bodies = self._store.multi_get(list(here.values())) if here else []
            except (RuntimeError, dist.DistError) as error:
                _log.debug("the store does not answer: %s", error)
                continue
            now = time.monotonic()
            with self._lock:
                self._answered = now
                for rank, body in zip(here, map(json.loads, bodies), strict=True):
                    before, told, moved = self._seen.get(rank, ({}, now, now))
                    told = told if before.get("count") == body["count"] else now
                    moved = moved if all(before.get(name) == body[name] for name in _PLACE) else now
                    self._seen[rank] = (body, told, moved)

    def _judge(self) -> None:
        began = time.monotonic()
        while not self._over.wait(self._tick / 2):
            now = time.monotonic()
            if now - self._woke > 4 * self._tick:
                # This process itself was frozen for a while: everybody gets their time anew.
                self._forget(now)
                began = now
            self._woke = now
            self._listen_to_failures(now)
            text, found = self._verdict(now, began)
            if found:
                self._end_all(text, found)
                return

    def _forget(self, now: float) -> None:
        with self._lock:
            self._answered = self._own_since = now
            self._seen = {rank: (body, now, now) for rank, (body, _, _) in self._seen.items()}

    def _verdict(self, now: float, began: float) -> tuple[str, list[Sighting]]:
        step, phase = self._beat
        with self._lock:
            first = max([self._first_step, *(int(body["first"]) for body, _, _ in self._seen.values())])
            unanswered = now - self._answered
            sightings = [
                Sighting(self._world.rank, _place(_self()), step, phase, 0.0, now - self._own_since, self._done)
            ]
            for rank in range(self._world.size):
                if rank == self._world.rank:
                    continue
                body, told, moved = self._seen.get(rank, ({}, now, began))
                if "over" not in body:
                    # What the store did not answer is not the silence of a process.
                    silent = max(0.0, now - told - unanswered)
                    where = body.get("step", 0), body.get("phase", PREPARING)
                    sightings.append(Sighting(rank, _place(body), *where, silent, now - moved, body.get("done", 0)))
        if len(sightings) == 1:
            return "", []
        if unanswered > self._seconds:
            others = [one for one in sightings[1:] if one.rank == 0 or self._world.rank == 0] or sightings[1:]
            return (
                "cannot be reached, nor can the place where all met: it died, is frozen, or the network is cut",
                others,
            )
        return culprits(sightings, seconds=self._seconds, warm_after=first + _WARM_STEPS)

    def _listen_to_failures(self, now: float) -> None:
        """Where another process has failed and this one does not notice by itself, end it."""
        with self._lock:
            failed = {rank: (body, told) for rank, (body, told, _) in self._seen.items() if body.get("over") == _FAILED}
        for rank, (body, told) in failed.items():
            if now - told > _LAST_WORDS and self._own_since < told:
                self._leave(f"Process {rank} of {self._world.size} cannot go on: {body['words']}")

    def _end_all(self, text: str, found: Sequence[Sighting]) -> None:
        step, phase = self._beat
        if all(one.silent > 3 * self._tick for one in found):
            text = _SILENT
        words = "; ".join(one.describe() for one in found[:8]) + (f" and {len(found) - 8} more" if found[8:] else "")
        message = (
            f"Training ends: {words}: {text} (limit {self._seconds:g} s, --timeout-seconds). This is process "
            f"{self._world.rank}, at step {step}, {phase}. Start all again with --resume latest."
        )
        with self._lock:
            bodies = [
                self._seen[one.rank][0] for one in found if one.rank in self._seen and one.silent > 3 * self._tick
            ]
        for body in bodies:
            _kill_if_here(body)
        self._leave(message)

    def _leave(self, message: str) -> None:
        _log.error("%s", message)
        self._end(LOST_A_PROCESS)

    def _explain(self, error: RuntimeError) -> ClipError | None:
        """The error in place of what torch says when a message to another process fails; None: it says other things."""
        if isinstance(error, ClipError) or not _BROKEN.search(str(error)):
            return None
        step, phase = self._beat
        deadline = time.monotonic() + max(4 * self._tick, 2.0)
        text = "A message to the other processes failed"
        while time.monotonic() < deadline:
            time.sleep(self._tick / 2)
            now = time.monotonic()
            with self._lock:
                seen = dict(self._seen)
            for rank, (body, _, _) in sorted(seen.items()):
                if body.get("over") == _FAILED:
                    kind = PeerLost if body.get("lost") else PeerFailed
                    return kind(f"Process {rank} of {self._world.size} cannot go on: {body['words']}")
            silent = [
                Sighting(rank, _place(body), body["step"], body["phase"], now - told)
                for rank, (body, told, _) in sorted(seen.items())
                if now - told > 3 * self._tick and "over" not in body
            ]
            if silent:
                words = "; ".join(one.describe() for one in silent)
                text = f"{words}: died, or cannot be reached"
                break
        return PeerLost(
            f"{text[0].upper()}{text[1:]}. This is process {self._world.rank}, at step {step}, {phase}; torch says: "
            f"{str(error).splitlines()[0][:300]}. Start all again with --resume latest."
        )


def _self() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "born": _born(os.getpid()), "space": _space()}


def _place(body: dict[str, Any]) -> str:
    return f"{body['host']}, pid {body['pid']}" if "host" in body else ""


def _born(pid: int) -> str:
    """When the process was started, in the system's own counting; "" where that cannot be known."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _space() -> str:
    """What numbers of processes are numbers of: the boot and the namespace; "" where that cannot be known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _kill_if_here(body: dict[str, Any]) -> None:
    """End a frozen process of this host, which torchrun would wait for; nothing where it might be another one."""
    own = _self()
    if own["space"] and body["born"] and body["space"] == own["space"] and _born(body["pid"]) == body["born"]:
        try:
            os.kill(body["pid"], signal.SIGKILL)
        except OSError as error:
            _log.debug("%s cannot be ended: %s", _place(body), error)
