"""Reading alone: open_clip_train 3.3.0's own loader and clip-train's, on the same shards, in alternation.

    python bench_loader.py [--samples 8000] [--shards 16] [--rounds 3] [--workers 2] [--batch 250] [--json FILE]

The shards hold photographs of 256 to 512 pixels with captions (shards.py). Each loader runs in a process of its own
and reads `--samples` in each round, as it would for ViT-B-32 at 224 pixels with open_clip's default augmentation; what
it reads is thrown away. A round begins behind the first batches, so starting workers does not count. Samples per second
are by the clock, and per second of processor time of the process with its workers, so that other work on the machine
does not count. Memory is the most that they held together (PSS: shared pages count once). Figures are medians.

Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shards import write_shards

MODEL = "ViT-B-32"
OURS = {
    "clip-train, Pillow, processes": {},
    "clip-train, torch resizer, processes": {"image_resizer": "torch"},
    "clip-train, torch resizer, threads": {"image_resizer": "torch", "worker_kind": "thread"},
}
PEER = "open_clip_train 3.3.0"
WARM = 2
"""Batches of a round that do not count."""


def open_clip_batches(given: argparse.Namespace) -> Callable[[], Iterator[int]]:
    """Rounds of open_clip's loader, which give the size of each batch."""
    import open_clip
    import open_clip_train.data
    from open_clip_train.params import parse_args

    # It asks for webdataset 0.2.86 or older; newer ones add an empty sample to each shard unless they are told not to.
    expand = open_clip_train.data.tar_file_expander
    if "eof_value" in inspect.signature(expand).parameters:
        open_clip_train.data.tar_file_expander = functools.partial(expand, eof_value=None)
    args = parse_args(
        f"--train-data {given.data} --train-num-samples {given.samples} --dataset-type webdataset "
        f"--batch-size {given.batch} --workers {given.workers} --model {MODEL}".split()
    )
    args.world_size, args.rank, args.distributed = 1, 0, False
    transform = open_clip.image_transform(224, is_train=True, mean=None, std=None)
    info = open_clip_train.data.get_wds_dataset(
        args, transform, is_train=True, tokenizer=open_clip.get_tokenizer(MODEL)
    )
    epochs = iter(range(1000))

    def batches() -> Iterator[int]:
        info.set_epoch(next(epochs))
        return (len(texts) for _, texts in info.dataloader)

    return batches


def our_batches(given: argparse.Namespace) -> Callable[[], Iterator[int]]:
    """Rounds of clip-train's loader."""
    import torch

    import clip_core
    from clip_core.train_pixels import TrainPixels
    from clip_train import TrainConfig
    from clip_train.data.decode import Decoder
    from clip_train.data.jpeg import decode_jpeg
    from clip_train.data.loader import Share, iterate_batches
    from clip_train.data.ordering import build_order
    from clip_train.data.source import open_source

    fields = {"model": MODEL, "train_data": given.data, "batch_size": given.batch, "workers": given.workers}
    config = TrainConfig.of(**fields, **OURS[given.row]).data
    source = open_source(config)
    pixels = TrainPixels(clip_core.get_config(MODEL).preprocess, config.aug_cfg, resizer=config.image_resizer)
    decoder = Decoder(
        source, build_order(config, source, 0, given.batch), pixels, clip_core.get_tokenizer(MODEL), decode=decode_jpeg
    )
    device, count = torch.device("cpu"), -(-given.samples // given.batch)

    def batches() -> Iterator[int]:
        made = iterate_batches(
            decoder,
            Share(given.batch),
            range(count),
            workers=given.workers,
            device=device,
            kind=config.worker_kind,
        )
        return (len(batch.tokens) for batch in made)

    return batches


def serve(given: argparse.Namespace) -> None:
    """Read a round for each line of standard input, and say how it went."""
    begin = (open_clip_batches if given.row == PEER else our_batches)(given)
    print(json.dumps({"ready": given.row}), flush=True)
    for _ in sys.stdin:
        batches = begin()
        for _ in range(WARM):
            next(batches)
        print(json.dumps({"begin": True}), flush=True)
        start = time.perf_counter()
        samples = sum(batches)
        print(json.dumps({"samples": samples, "seconds": time.perf_counter() - start}), flush=True)


class Reader:
    """A loader in a process of its own."""

    def __init__(self, row: str, given: argparse.Namespace, data: str) -> None:
        flags = [f"--{name}={getattr(given, name)}" for name in ("samples", "workers", "batch")]
        self._process = subprocess.Popen(
            [sys.executable, __file__, f"--row={row}", f"--data={data}", *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a loader has ended; see above")
        found: dict[str, Any] = json.loads(line)
        return found

    def round(self) -> dict[str, float]:
        """Samples per second and per second of processor time, and the most megabytes."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._answer()
        before = {pid: processor_seconds(pid) for pid in family(self._process.pid)}
        most, last, done = 0.0, dict(before), threading.Event()

        def watch() -> None:
            nonlocal most
            while not done.wait(0.1):
                pids = family(self._process.pid)
                most = max(most, sum(map(proportional_bytes, pids)))
                # Workers are gone when the round is over.
                last.update({pid: seconds for pid in pids if (seconds := processor_seconds(pid))})

        watcher = threading.Thread(target=watch)
        watcher.start()
        answer = self._answer()
        done.set()
        watcher.join()
        last[self._process.pid] = processor_seconds(self._process.pid)
        used = sum(seconds - before.get(pid, 0.0) for pid, seconds in last.items())
        return {
            "samples/s": answer["samples"] / answer["seconds"],
            "samples/s of a core": answer["samples"] / used,
            "MB": most / 1e6,
        }

    def end(self) -> None:
        """Let it go."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def family(pid: int) -> list[int]:
    """A process and all below it."""
    try:
        tasks = [(path / "children").read_text() for path in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return [pid]
    return [pid, *(each for text in tasks for child in text.split() for each in family(int(child)))]


def processor_seconds(pid: int) -> float:
    """User and system time so far; 0 of one that is gone."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def proportional_bytes(pid: int) -> int:
    """Memory, of what is shared its part."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=8000, help="of the shards, and of a round")
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--data", help="shards that were written before")
    parser.add_argument("--only", default="", help="only the rows whose name holds this, beside open_clip's")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row:
        return serve(given)
    with tempfile.TemporaryDirectory() as folder:
        data, about = given.data, {}
        if data is None:
            data, about = write_shards(Path(folder), given.samples, shards=given.shards)
        readers = {row: Reader(row, given, data) for row in (PEER, *OURS) if row == PEER or given.only in row}
        found: dict[str, list[dict[str, float]]] = {row: [] for row in readers}
        for turn in range(given.rounds + 1):
            for row in list(readers) if turn % 2 else reversed(list(readers)):
                measured = readers[row].round()
                # The first round warms caches, of files and of tokens.
                if turn:
                    found[row].append(measured)
        for reader in readers.values():
            reader.end()
    rows = {
        row: {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
        for row, rounds in found.items()
    }
    for row in rows.values():
        for name in ("samples/s", "samples/s of a core"):
            row[f"{name} / peer"] = row[name] / rows[PEER][name]
    print(f"{'':40}{'samples/s':>10}{'ratio':>8}{'per core':>10}{'ratio':>8}{'MB':>8}")
    for name, row in rows.items():
        print(
            f"{name:40}{row['samples/s']:10.0f}{row['samples/s / peer']:8.2f}{row['samples/s of a core']:10.0f}"
            f"{row['samples/s of a core / peer']:8.2f}{row['MB']:8.0f}"
        )
    if given.json:
        machine = {"platform": platform.platform(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
        options = {name: getattr(given, name) for name in ("samples", "batch", "workers", "rounds")}
        given.json.write_text(
            json.dumps({"machine": machine, "options": options, "data": about, "rows": rows, "rounds": found}, indent=2)
        )
    return None


if __name__ == "__main__":
    main()
