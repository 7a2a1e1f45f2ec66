"""What the rooms of bench_gpu share: the clock of a CUDA device, peaks of memory, and cases that survive each other.

Before each timed call the L2 cache is overwritten, and the device is kept busy until the call is all in its queue, so
that a time is the device's and not that of Python. Without a CUDA device the clock is the host's: for rehearsals.
"""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]
_MOST_SLEEP = 0.05  # seconds
_CYCLES = 1.9e9  # per second, about; only the length of a pause depends on it


@dataclasses.dataclass(frozen=True)
class Case:
    """One measurement: a name that no other case of its part has, what gives its row, and what it is of.

    `of` is in the row in any case, so that the targets also know of what failed or was not reached.
    """

    name: str
    run: Callable[[], Row]
    of: Row = dataclasses.field(default_factory=dict)


class Clock:
    """Times calls on one device."""

    def __init__(self, rehearsal: bool) -> None:
        self.rehearsal = rehearsal
        self.cuda = torch.cuda.is_available() and not rehearsal
        self.device = torch.device("cuda" if self.cuda else "cpu")
        self._cache = torch.empty(2**28 if self.cuda else 1, dtype=torch.uint8, device=self.device)

    def milliseconds(self, call: Callable[[], object], *, seconds: float = 0.6, pipelined: bool = True) -> float:
        """Median of one call's time; about `seconds` are spent on repeats, 5 to 50 of them.

        Args:
            call: what to time; its result is dropped.
            seconds: for the repeats, beside the warm-up.
            pipelined: False for what waits for the device itself or takes long, such as a training step.
        """
        if not self.cuda:
            call()
            start = time.perf_counter()
            call()
            return (time.perf_counter() - start) * 1000
        for _ in range(3):
            call()
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        queued = time.perf_counter() - start
        torch.cuda.synchronize()
        once = time.perf_counter() - start
        pause = int(min(queued * 1.5 + 2e-4, _MOST_SLEEP) * _CYCLES) if pipelined else 0
        events = []
        for _ in range(max(5, min(50, int(seconds / once)))):
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self._cache.zero_()
            if pause:
                torch.cuda._sleep(pause)
            before.record()
            call()
            after.record()
            events.append((before, after))
        torch.cuda.synchronize()
        return statistics.median(before.elapsed_time(after) for before, after in events)

    def peak_mib(self, call: Callable[[], object]) -> float | None:
        """MiB at the peak of one call, above what was allocated before it; None where there is no device."""
        if not self.cuda:
            call()
            return None
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20


def reason(error: BaseException) -> str:
    """One line about an exception."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return "out of memory"
    if re.match(r"No (viable backend|available kernel)", str(error)):  # a backend of torch that was asked for alone
        return "not available"
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"


def work_through(cases: Iterable[Case], state: Path, seconds: float, known: set[str]) -> bool:
    """Run the cases that are not `known`, one line of JSON each in `state`; False where the device broke down.

    A case that fails has its reason in its row. A case that is not reached within `seconds` has a row that says so.
    """
    end = time.monotonic() + seconds
    with state.open("a", encoding="utf-8") as file:

        def say(line: Row) -> None:
            file.write(json.dumps(line) + "\n")
            file.flush()

        for case in cases:
            if case.name in known:
                continue
            if time.monotonic() > end:
                say({"row": {"case": case.name, **case.of, "error": "not reached: the time was up"}})
                continue
            say({"started": {"case": case.name, **case.of}})
            start = time.monotonic()
            try:
                row = case.run()
            except Exception as error:
                traceback.print_exc()
                row = {"error": reason(error)}
            say({"row": {"case": case.name, **case.of, **row, "seconds": round(time.monotonic() - start, 2)}})
            if torch.cuda.is_available():
                try:
                    torch.cuda.synchronize()  # an illegal access breaks everything that comes after it in a process
                    torch.cuda.empty_cache()
                except Exception:
                    return False
    return True


def read_state(state: Path) -> tuple[list[Row], Row | None]:
    """The rows in a file of `work_through`, and the name and `of` of the case that was begun and has none."""
    rows: list[Row] = []
    begun: Row | None = None
    for line in _lines(state):
        if "started" in line:
            begun = line["started"]
        else:
            rows.append(line["row"])
            begun = None if begun is not None and line["row"]["case"] == begun["case"] else begun
    return rows, begun


def _lines(state: Path) -> Iterator[Row]:
    for text in state.read_text(encoding="utf-8").splitlines() if state.exists() else []:
        try:
            yield json.loads(text)
        except json.JSONDecodeError:  # what a process that was stopped was about to write
            continue
