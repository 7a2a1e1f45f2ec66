"""A training command as its user starts it, watched from outside: steps, clock, processor time and memory.

Both sides are watched in the same way. Steps are counted in the file that each of them writes; processor time and
memory are those of the process and all its children, as Linux accounts for them. What two processes share is counted
half for each (PSS).
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

__all__ = ["SIDES", "Run", "losses", "run"]

_TICK = os.sysconf("SC_CLK_TCK")
_BETWEEN = 0.1  # seconds between two looks at the clock, and a tenth as often at memory, which takes longer
_THEIR_STEP = re.compile(r"Train Epoch: .* Loss: (\S+) \(")


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """What one command took, between the end of step `warm` and the end of its last one."""

    steps: int
    seconds: float
    processor_seconds: float
    """Of the training process, in these steps, and of data workers, whose whole time is divided by all batches."""
    peak_bytes: int
    """The most that the process and its children held together, at any time."""
    losses: list[float]
    """Of every step of the run."""


def _their_losses(folder: Path) -> list[float]:
    text = (folder / "out.log").read_text(encoding="utf-8") if (folder / "out.log").exists() else ""
    return [float(value) for value in _THEIR_STEP.findall(text)]


def _our_losses(folder: Path) -> list[float]:
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line)["loss"] for line in lines]


SIDES: dict[str, tuple[list[str], Callable[[Path], list[float]]]] = {
    "open_clip": ([sys.executable, str(Path(__file__).parent / "open_clip_main.py")], _their_losses),
    "clip-train": ([sys.executable, "-m", "clip_train"], _our_losses),
}
"""How each side is started, and where it says what its losses were."""


def losses(side: str, folder: Path) -> list[float]:
    """The loss of each step that a run has left in `folder`."""
    return SIDES[side][1](folder)


def run(
    side: str, flags: Sequence[str], logs: Path, name: str, *, warm: int, environment: Mapping[str, str] | None = None
) -> Run:
    """Run the command of `side` with `flags` to its end; it logs every step into `logs`/`name`."""
    words = [*SIDES[side][0], *flags, "--logs", str(logs), "--name", name, "--log-every-n-steps", "1"]
    output = logs / f"{name}.txt"
    logs.mkdir(parents=True, exist_ok=True)
    marks: list[tuple[float, float]] = []  # (clock, processor time of the training process) at the end of each step
    workers: dict[int, float] = {}
    peak = turn = 0
    with output.open("w") as file:
        process = subprocess.Popen(
            words, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )
        try:
            while process.poll() is None:
                tree = _tree(process.pid)
                now, own = time.perf_counter(), _processor_time(process.pid)
                workers |= {child: max(_processor_time(child), workers.get(child, 0.0)) for child in tree[1:]}
                done = len(losses(side, logs / name))
                marks += [(now, own)] * (done - len(marks))
                if turn % 10 == 0:
                    peak = max(peak, sum(map(_memory, tree)))
                turn += 1
                time.sleep(_BETWEEN)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    found = losses(side, logs / name)
    if process.returncode or len(marks) <= warm:
        sys.exit(f"{' '.join(words)}\nended with {process.returncode} after {len(found)} steps:\n{_end_of(output)}")
    steps = len(marks) - warm
    (start, own_start), (end, own_end) = marks[warm - 1], marks[-1]
    reading = sum(workers.values()) * steps / len(marks)
    return Run(steps, end - start, own_end - own_start + reading, peak, found)


def _end_of(path: Path) -> str:
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-30:])


def _tree(pid: int) -> list[int]:
    """`pid` and all its children and theirs."""
    found, place = [pid], 0
    while place < len(found):
        try:
            for children in Path(f"/proc/{found[place]}/task").glob("*/children"):
                found += map(int, children.read_text().split())
        except OSError:
            pass  # it has ended
        place += 1
    return found


def _processor_time(pid: int) -> float:
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / _TICK  # in user and in kernel mode


def _memory(pid: int) -> int:
    try:
        words = Path(f"/proc/{pid}/smaps_rollup").read_text().split()
    except OSError:
        return 0
    return int(words[words.index("Pss:") + 1]) * 1024 if "Pss:" in words else 0
