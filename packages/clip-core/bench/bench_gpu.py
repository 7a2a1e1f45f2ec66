"""clip-core's programs on a CUDA device beside torch and OpenCLIP: ceilings, attention, losses, packed text, steps.

    python bench_gpu.py [PART ...] [--json FILE] [--seconds 540] [--rehearse]

Unattended, with this Python's own torch and the packages' source folders; under ten minutes. Each part has its share of
the time and a process of its own, which is started again behind the case that broke it; the file is written anew
after each case, so that a run that is cut short keeps what it has. Where there is no device it says so and succeeds.
`--rehearse` goes through every part with tiny sizes on the CPU: its times mean nothing. The rooms are beside this
file: gpu_timing, gpu_ceilings, gpu_attention, gpu_losses, gpu_text, gpu_steps, gpu_targets.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
sys.path[:0] = [str(HERE), str(ROOT / "tools"), str(HERE.parent / "src")]

from gpu_targets import targets  # noqa: E402
from gpu_timing import Row, read_state  # noqa: E402

SHARES = {"ceilings": 0.06, "attention": 0.24, "losses": 0.36, "text": 0.14, "steps": 0.20}
"""The parts in their order, and each one's share of the time."""
MOST_STARTS = 8


def do_part(part: str, state: Path, seconds: float, rehearsal: bool, earlier: Path | None) -> int:
    """Run one part in this process; exit code 3 where the device broke down and it should be started again."""
    import gpu_attention
    import gpu_ceilings
    import gpu_losses
    import gpu_steps
    import gpu_text
    from gpu_timing import Clock, work_through

    clock = Clock(rehearsal)
    rows, _ = read_state(state)
    rooms = {"ceilings": gpu_ceilings, "attention": gpu_attention, "losses": gpu_losses, "text": gpu_text}
    cases = gpu_steps.cases(clock, measured_so_far(earlier)) if part == "steps" else rooms[part].cases(clock)
    return 0 if work_through(cases, state, seconds, {row["case"] for row in rows}) else 3


def measured_so_far(earlier: Path | None) -> Sequence[object]:
    """The rows for `clip_core.kernels.measured` that a file of this bench gives."""
    from clip_core.kernels.measured import Measured
    from measured import rows_of

    content = json.loads(earlier.read_text(encoding="utf-8")) if earlier is not None and earlier.exists() else None
    return [] if content is None or content["rehearsal"] else [Measured(**row) for row in rows_of(content)]


def supervise(
    command: Sequence[str],
    state: Path,
    seconds: float,
    *,
    grace: float = 30.0,
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Run `command`, which works through cases, until it is through; start it again where a case broke it.

    A case that was begun by a process that then ended has a row that says so. A process that is not through `grace`
    seconds after `seconds` is stopped. `watch` is called every other second.
    """
    end = time.monotonic() + seconds
    for _ in range(MOST_STARTS):
        left = end - time.monotonic()
        if left <= 0:
            return
        code = _finish(subprocess.Popen([*command, "--part-seconds", f"{left:.1f}"]), end + grace, watch)
        rows, begun = read_state(state)
        if begun is not None:
            why = "not through in time" if code is None else f"its process ended with code {code}"
            with state.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps({"row": {**begun, "error": why}}) + "\n")
        if not code or (begun is None and not rows):
            return


def _finish(process: subprocess.Popen[bytes], end: float, watch: Callable[[], None]) -> int | None:
    """The exit code, or None where the process was stopped at `end`."""
    while process.poll() is None:
        if time.monotonic() > end:
            process.kill()
            process.wait()
            return None
        try:
            process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            watch()
    return process.returncode


def device_of(rehearsal: bool) -> Row:
    """What was measured, and with what."""
    import importlib.metadata

    import torch
    from beside import machine

    found: Row = {**machine(), "device": "rehearsal", "architecture": "none", "cuda": torch.version.cuda}
    for name in ("triton", "open_clip_torch"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    if not rehearsal:
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "device": properties.name,
            "architecture": f"sm_{properties.major}{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_gib": round(properties.total_memory / 2**30, 1),
        }
    return found


def write(path: Path, content: Row) -> None:
    """Replace the file at once, so that it is whole whenever this is stopped."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(beside, path)


def show(part: str, rows: Sequence[Row]) -> None:
    """A line for each row of a part."""
    print(f"\n{part}")
    for row in rows:
        if "error" in row:
            print(f"  {row['case']}: {row['error']}")
            continue
        facts = [f"{key} {value:,.3g}" for key, value in row.items() if isinstance(value, float) and key != "seconds"]
        times = [f"{name} {time['training']:.3g}" for name, time in row.get("times", {}).items()]
        missing = [f"{name}: {why}" for name, why in row.get("missing", {}).items()]
        print(f"  {row['case']}: {'; '.join([*facts, *times, *missing])}", flush=True)


def run(parts: Sequence[str], path: Path, seconds: float, rehearsal: bool) -> Row:
    """Every part in its order; what stands in the file in the end."""
    start = time.monotonic()
    content: Row = {"bench": "gpu", "rehearsal": rehearsal, "machine": device_of(rehearsal)}
    content |= {"parts": {}, "targets": [], "seconds": 0.0}
    write(path, content)
    with tempfile.TemporaryDirectory() as folder:
        for place, part in enumerate(parts):
            state = Path(folder) / f"{part}.jsonl"

            def save(part: str = part, state: Path = state) -> None:
                content["parts"][part] = read_state(state)[0]
                content["targets"] = targets(content["parts"], judged=not rehearsal)
                content["seconds"] = round(time.monotonic() - start, 1)
                write(path, content)

            # What a part leaves over is for the later ones.
            share = (seconds - (time.monotonic() - start)) * SHARES[part] / sum(SHARES[name] for name in parts[place:])
            if rehearsal:
                do_part(part, state, share, True, path)
            else:
                command = [sys.executable, __file__, "--part", part, "--state", str(state), "--earlier", str(path)]
                supervise(command, state, share, watch=save)
            save()
            show(part, content["parts"][part])
    return content


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(SHARES)}; all unless named")
    parser.add_argument("--json", type=Path, default=Path("bench_gpu.json"), help="where the figures go")
    parser.add_argument("--seconds", type=float, default=540.0, help="for all parts together")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes on the CPU")
    for name, kind in (("part", str), ("state", Path), ("part-seconds", float), ("earlier", Path)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        return do_part(given.part, given.state, given.part_seconds, given.rehearse, given.earlier)
    unknown = [part for part in given.parts if part not in SHARES]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; allowed: {', '.join(SHARES)}")
    import torch

    if not (torch.cuda.is_available() or given.rehearse):
        print(f"no CUDA device (torch {torch.__version__} sees none): nothing measured")
        return 0
    content = run(given.parts or list(SHARES), given.json, given.seconds, given.rehearse)
    print("\ntargets")
    for target in content["targets"]:
        verdict = {True: "met", False: "not met", None: "not measured"}[target["met"]]
        if given.rehearse:
            verdict = "not judged: a rehearsal"
        found = "-" if target["found"] is None else f"{target['found']:.2f}"
        print(f"  {target['case']}: {target['target']}: {found} of {target['wanted']}: {verdict}")
    print(f"\n{content['machine']['device']}, {content['seconds']} s, {given.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
