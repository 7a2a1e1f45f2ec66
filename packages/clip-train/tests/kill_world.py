"""Runs that are killed with -9 and go on: `python kill_world.py FOLDER SHARDS CASE [CASE ...]`.

This process imports everything once and forks every run, which costs milliseconds where a new process costs seconds.
What the runs left is in `FOLDER/results.json`, by case; `test_exactness.py` knows what is right.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import clip_core.presets
from clip_core.presets.parts import model, text_tower
from clip_core.presets.vit import image_tower
from clip_train import TrainConfig, train
from clip_train.checkpoint import disk
from clip_train.plan import prepare
from clip_train.trainer import start

STEPS, EVERY = 15, 2
_EFFECTS = ("make_folder", "write_tensors", "write_text", "sync", "publish", "remove", "hash_file")


class Runs:
    """Starts, kills and waits for runs in one folder."""

    def __init__(self, folder: Path, shards: str) -> None:
        self.folder = folder
        self.shards = shards
        self.effects = 0
        """How often a whole run touches the disk to save, once `whole` has counted."""

    def config(self, name: str, **fields: Any) -> TrainConfig:
        given: dict[str, Any] = {
            "model": "tiny",
            "train_data": self.shards,
            "batch_size": 8,
            "epochs": 3,
            "lr": 1e-3,
            "warmup": 2,
            "workers": 0,
            "device": "cpu",
            "precision": "fp32",
            "logs": str(self.folder),
            "name": name,
            "resume": "latest",
            "save_every_n_steps": EVERY,
        }
        return TrainConfig.of(**{**given, **fields})

    def start(self, name: str, world: int = 1, before: Callable[[], None] | None = None, **fields: Any) -> list[int]:
        """The processes of a run that was started, or goes on; `before` is called in each, before it trains."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        return [self._fork(name, world, rank, port, before, fields) for rank in range(world)]

    def _fork(
        self, name: str, world: int, rank: int, port: int, before: Callable[[], None] | None, fields: dict[str, Any]
    ) -> int:
        process = os.fork()
        if process:
            return process
        code = 1
        try:
            output = os.open(self.folder / f"{name}-{rank}.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            if world > 1:
                places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
                os.environ.update({key: str(value) for key, value in places.items()}, MASTER_ADDR="127.0.0.1")
            if before is not None:
                before()
            train(self.config(name, **{"batch_size": 8 // world, **fields}))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def wait(self, processes: list[int]) -> None:
        """Wait for their end; one that failed by itself, rather than by -9, ends everything."""
        for process in processes:
            _, status = os.waitpid(process, 0)
            if os.waitstatus_to_exitcode(status) not in (0, -signal.SIGKILL):
                outputs = "\n".join(path.read_text() for path in self.folder.glob("*.out"))
                raise SystemExit(f"a run failed:\n{outputs[-4000:]}")

    def steps(self, name: str) -> int:
        path = self.folder / name / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def kill_at(self, processes: list[int], name: str, steps: int, wait: float) -> bool:
        """Kill a run `wait` seconds after it has recorded `steps`; whether it was still there."""
        while (
            self.steps(name) < steps and os.waitid(os.P_PID, processes[0], os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        ):
            time.sleep(0.002)
        time.sleep(wait)
        alive = os.waitid(os.P_PID, processes[0], os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        for process in processes:
            os.kill(process, signal.SIGKILL)
        self.wait(processes)
        return alive

    def result(self, name: str, **more: Any) -> dict[str, Any]:
        """What a run has left; its folder is deleted."""
        folder = self.folder / name
        records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        weights = hashlib.sha256((folder / "bundle" / "model.safetensors").read_bytes()).hexdigest()
        summary = json.loads((folder / "summary.json").read_text())
        kept = sorted(path.name for path in (folder / "checkpoints").iterdir())
        log = (folder / "out.log").read_text()
        shutil.rmtree(folder)
        return {"records": records, "weights": weights, "kept": kept, "summary": summary, "log": log, **more}


def whole(runs: Runs) -> dict[str, Any]:
    """The run that all others are compared with, and how often it touches the disk to save."""
    counter = runs.folder / "effects"
    runs.wait(runs.start("whole", before=lambda: count_effects(counter)))
    runs.effects = len(counter.read_text())
    return runs.result("whole", effects=runs.effects)


def repeated(runs: Runs) -> dict[str, Any]:
    runs.wait(runs.start("repeated"))
    return runs.result("repeated")


def other_workers(runs: Runs) -> dict[str, Any]:
    """Begun with two workers, killed, and ended with one."""
    killed = runs.kill_at(runs.start("workers", workers=2), "workers", 6, 0.01)
    runs.wait(runs.start("workers", workers=1))
    return runs.result("workers", kills=int(killed))


def killed(runs: Runs, kills: int = 5, seed: int = 0, world: int = 1, **fields: Any) -> dict[str, Any]:
    """Killed at random instants of one run until `kills` have hit it."""
    draw, done, name = random.Random(seed), 0, f"killed-{seed}-{world}"
    while done < kills:
        target = min(runs.steps(name) + draw.randint(0, 3), STEPS)
        done += runs.kill_at(runs.start(name, world, **fields), name, target, draw.uniform(0, 0.08))
    runs.wait(runs.start(name, world, **fields))
    return runs.result(name, kills=done)


def killed_in_a_save(runs: Runs, points: int = 4, seed: int = 1) -> list[dict[str, Any]]:
    """Killed before, within or after one of the things that a save does to the disk, each in a run of its own."""
    draw = random.Random(seed)
    places = [(number, when) for number in range(runs.effects) for when in ("before", "within", "after")]
    found = []
    for place in draw.sample(places, min(points, len(places))):
        name = "point-{}-{}".format(*place)
        runs.wait(runs.start(name, before=lambda place=place: die_at(*place)))
        reached = runs.steps(name)
        runs.wait(runs.start(name))
        found.append(runs.result(name, place=place, reached=reached))
    return found


def two_processes(runs: Runs) -> dict[str, Any]:
    runs.wait(runs.start("two", 2))
    return runs.result("two")


def two_killed(runs: Runs) -> dict[str, Any]:
    return killed(runs, kills=2, seed=3, world=2)


def elastic(runs: Runs) -> dict[str, Any]:
    """Begun on two processes, gone on with on four, and ended on one; full and sharded checkpoints by turns."""
    hits = runs.kill_at(runs.start("elastic", 2, fsdp_checkpoint="sharded"), "elastic", 5, 0.0)
    hits += runs.kill_at(runs.start("elastic", 4, fsdp_checkpoint="sharded", save_async=True), "elastic", 10, 0.0)
    runs.wait(runs.start("elastic", 1))
    return runs.result("elastic", kills=int(hits))


def divided(runs: Runs) -> dict[str, Any]:
    """In pieces on two processes, with full and then sharded checkpoints, and ended whole on one."""
    hits = runs.kill_at(runs.start("divided", 2, fsdp=True), "divided", 5, 0.0)
    hits += runs.kill_at(runs.start("divided", 2, fsdp=True, fsdp_checkpoint="sharded"), "divided", 10, 0.0)
    runs.wait(runs.start("divided", 1))
    return runs.result("divided", kills=int(hits))


def _patches(processes: int) -> dict[str, Any]:
    """Steps of 16 or 8 samples, by the length that is drawn, whatever the number of processes."""
    return {
        "use_naflex": True,
        "naflex_seq_lens": (4, 9),
        "naflex_patch_sizes": (8, 16),
        "naflex_max_tokens_per_batch": 72 // processes,
        "naflex_batch_divisor": 4,
    }


def flex(runs: Runs) -> dict[str, Any]:
    """Trained on patches, by two processes and by one."""
    runs.wait(runs.start("flex-two", 2, **_patches(2)))
    runs.wait(runs.start("flex-one", 1, **_patches(1)))
    return {"two": runs.result("flex-two"), "one": runs.result("flex-one")}


def flex_killed(runs: Runs) -> dict[str, Any]:
    """Killed on two processes, and gone on with on one, with the flags of two."""
    hits = runs.kill_at(runs.start("flex-killed", 2, **_patches(2)), "flex-killed", 5, 0.0)
    runs.wait(runs.start("flex-killed", 1, **_patches(2)))
    return runs.result("flex-killed", kills=int(hits))


def many(runs: Runs) -> list[dict[str, Any]]:
    """At least 50 kills, for the night."""
    kinds: list[dict[str, Any]] = [{}, {"workers": 1}, {"save_async": True}, {"fsdp_checkpoint": "sharded"}]
    return [killed(runs, kills=5, seed=seed, **kinds[seed % 4]) for seed in range(10, 22)]


def every_point(runs: Runs) -> list[dict[str, Any]]:
    return killed_in_a_save(runs, points=10**6)


def count_effects(counter: Path) -> None:
    """Write a letter for each thing that is done to the disk."""

    def around(work: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        with counter.open("a") as file:
            file.write("x")
        return work()

    _wrap(around)


def die_at(number: int, when: str) -> None:
    """End this process by -9 at the `number`th thing that is done to the disk."""
    left = iter(range(10**6))

    def around(work: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        hit = next(left) == number
        if hit and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = work()
        if hit and when == "within" and isinstance(args[0], Path) and args[0].is_file():
            with args[0].open("r+b") as file:
                file.truncate(args[0].stat().st_size // 2)
        if hit:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    _wrap(around)


def _wrap(around: Callable[[Callable[[], Any], tuple[Any, ...]], Any]) -> None:
    for name in _EFFECTS:
        honest = getattr(disk, name)
        setattr(disk, name, lambda *args, honest=honest: around(lambda: honest(*args), args))


def main(folder: str, shards: str, *cases: str) -> None:
    torch.set_num_threads(1)
    # The smallest vocabulary there is has 49,408 words; all else is as small as it can be.
    clip_core.presets._PRESETS["tiny"] = model(
        16, image_tower(32, 16, 16, 1, 2, 32), text_tower(8, 2, 1, context_length=32)
    )
    runs = Runs(Path(folder), shards)
    # Whatever is imported on the way need not be imported in each run.
    start(prepare(runs.config("none")))
    results = {}
    for case in cases:
        begun = time.perf_counter()
        results[case] = globals()[case](runs)
        print(f"{case}: {time.perf_counter() - begun:.1f} s", flush=True)
    (Path(folder) / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
