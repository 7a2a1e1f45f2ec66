"""Worlds of 1 to 3 real processes, and processes that are killed: `python eval_world.py FOLDER`.

Each case is run by forked processes that meet over gloo; each saves what it found, or the error that it ended with, as
`FOLDER/<case>-<size>-<rank>.json`. `test_processes.py` and `test_store.py` know what is right.
"""

from __future__ import annotations

import dataclasses
import io
import json
import multiprocessing
import os
import signal
import socket
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import clip_core
from clip_core import Bundle
from clip_core.errors import DataError
from clip_eval.encoder import Encoder
from clip_eval.in_training import InTraining
from clip_eval.processes import Ranks
from clip_eval.store import FeatureStore
from clip_eval.tasks import evaluate_retrieval, evaluate_zero_shot
from clip_eval.wds import WdsDataset, open_dataset

SIZES = (7, 1, 10, 4)
"""Samples of each shard; in the third one two do not decode."""
TEXTS = [f"a photo of {number} animals" + " and more" * (number % 5) for number in range(23)] * 2
Result = dict[str, Any]


def make_dataset(folder: Path, sizes: tuple[int, ...] = SIZES) -> Path:
    """A classification set of three classes with shards of these sizes."""
    (folder / "test").mkdir(parents=True)
    (folder / "classnames.txt").write_text("cat\ndog\nowl\n")
    (folder / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\na drawing of a {c}.\n")
    (folder / "test" / "nshards.txt").write_text(f"{len(sizes)}\n")
    number = 0
    for shard, size in enumerate(sizes):
        with tarfile.open(folder / "test" / f"{shard}.tar", "w") as tar:
            for place in range(size):
                buffer = io.BytesIO()
                pixels = np.random.RandomState(number).randint(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(buffer, "PNG")
                data = b"broken" if shard == 2 and place in (3, 4) else buffer.getvalue()
                for name, content in ((f"s{number:04}.cls", str(number % 3).encode()), (f"s{number:04}.png", data)):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
                number += 1
    return folder


def make_bundle() -> Bundle:
    """An untrained model, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return clip_core.create("tiny")


def spoiled(bundle: Bundle, at: int, deed: Callable[[], None]) -> Bundle:
    """`bundle` with a transform that does something else too when it is called for the `at`-th time."""
    calls = iter(range(10**9))

    def preprocess(source: Any) -> torch.Tensor:
        if next(calls) == at:
            deed()
        return bundle.preprocess(source)

    return dataclasses.replace(bundle, preprocess=preprocess)


def _features(encoder: Encoder, dataset: WdsDataset) -> Result:
    images = encoder.images(dataset)
    task = evaluate_zero_shot(encoder, dataset, images)
    captions = tuple((f"picture {place}", f"number {place % 5}") for place in range(len(dataset.samples)))
    found = evaluate_retrieval(encoder, dataclasses.replace(dataset, kind="retrieval", captions=captions), images)
    return {
        "retrieval": {name: metric.to_json() for name, metric in found.metrics.items()},
        "answers": [dataclasses.asdict(sample) for sample in found.samples],
        "images": images.features.tolist(),
        "kept": images.kept.tolist(),
        "excluded": [dataclasses.asdict(entry) for entry in images.excluded],
        "found": images.found,
        "texts": encoder.texts(TEXTS).tolist(),
        "metrics": {name: metric.to_json() for name, metric in task.metrics.items()},
    }


def same_features(home: Path, ranks: Ranks) -> Result:
    return _features(Encoder(bundle=make_bundle(), batch_size=2, ranks=ranks), open_dataset(home / "data"))


def fewer_batches_than_processes(home: Path, ranks: Ranks) -> Result:
    return _features(Encoder(bundle=make_bundle(), batch_size=64, ranks=ranks), open_dataset(home / "data"))


def one_store(home: Path, ranks: Ranks) -> Result:
    """Twice; the other processes have a disk without the store."""
    root = home / (f"store-{ranks.size}" if ranks.first else f"elsewhere-{ranks.size}-{ranks.rank}")
    for _ in range(2):
        store = FeatureStore(root, dtype="float16")
        encoder = Encoder(bundle=make_bundle(), batch_size=2, ranks=ranks, store=store, workers=0)
        result = _features(encoder, open_dataset(home / "data"))
    return {**result, "files": sum(1 for _ in root.rglob("*.safetensors"))}


def _fail(error: Exception) -> Callable[[], None]:
    def deed() -> None:
        raise error

    return deed


def _with_one_that(deed: Callable[[], None]) -> Callable[[Path, Ranks], Result]:
    def case(home: Path, ranks: Ranks) -> Result:
        bundle = make_bundle()
        if ranks.rank == ranks.size - 1:
            bundle = spoiled(bundle, 3, deed)
        return _features(Encoder(bundle=bundle, batch_size=2, ranks=ranks), open_dataset(home / "data"))

    return case


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def other_data(home: Path, ranks: Ranks) -> Result:
    dataset = open_dataset(home / "data")
    if not ranks.first:
        dataset = dataclasses.replace(dataset, samples=dataset.samples[1:])
    return _features(Encoder(bundle=make_bundle(), ranks=ranks), dataset)


def other_weights(home: Path, ranks: Ranks) -> Result:
    bundle = make_bundle()
    with torch.no_grad():
        bundle.model.visual.proj.mul_(1 + ranks.rank)
    return _features(Encoder(bundle=bundle, ranks=ranks), open_dataset(home / "data"))


def in_training(home: Path, ranks: Ranks) -> Result:
    """With a group of its own beside the one that is there, as in clip-train; one clock is ahead of the other."""
    bundle = make_bundle()
    bundle.model.train()
    evaluation = InTraining(bundle, [open_dataset(home / "data")], every=3, share=0.5, batch_size=2)
    evaluation._begin -= 100 * (1 + ranks.rank)
    found = {str(step): evaluation.run(step) for step in range(1, 10) if evaluation.due(step)}
    for values in found.values():
        del values["evaluation_seconds"], values["evaluation_share"]
    return {"found": found, "training": bundle.model.training}


def killed_while_encoding(home: Path, ranks: Ranks) -> Result:
    """In the third shard; the transform's fingerprint takes four calls before."""
    bundle = spoiled(make_bundle(), 4 + SIZES[0] + SIZES[1] + 3, _die)
    encoder = Encoder(bundle=bundle, batch_size=2, store=FeatureStore(home / "killed-encoding"), workers=0)
    return _features(encoder, open_dataset(home / "data"))


def killed_while_writing(home: Path, ranks: Ranks) -> Result:
    """Before the second file of features gets its name."""
    replace, calls = Path.replace, iter(range(100))

    def replaced(path: Path, target: Path) -> Path:
        if "safetensors" in path.name and next(calls) == 1:
            _die()
        return replace(path, target)

    Path.replace = replaced  # type: ignore[method-assign, assignment]
    encoder = Encoder(bundle=make_bundle(), batch_size=2, store=FeatureStore(home / "killed-writing"), workers=0)
    return _features(encoder, open_dataset(home / "data"))


CASES: dict[str, tuple[tuple[int, ...], Callable[[Path, Ranks], Result], float]] = {
    "same features": ((1, 2, 3), same_features, 60),
    "fewer batches": ((1, 3), fewer_batches_than_processes, 60),
    "one store": ((1, 3), one_store, 60),
    "data error": ((3,), _with_one_that(_fail(DataError("the disk is gone"))), 60),
    "defect": ((2,), _with_one_that(_fail(KeyError("forgotten"))), 60),
    "killed": ((2,), _with_one_that(_die), 60),
    "silent": ((2,), _with_one_that(lambda: time.sleep(3)), 1),
    "other data": ((2,), other_data, 60),
    "other weights": ((2,), other_weights, 60),
    "in training": ((1, 2), in_training, 60),
    "killed while encoding": ((1,), killed_while_encoding, 60),
    "killed while writing": ((1,), killed_while_writing, 60),
}


def _process(home: Path, name: str, size: int, rank: int, port: int) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    _, case, timeout = CASES[name]
    try:
        with Ranks.join(timeout_seconds=timeout) as ranks:
            result = case(home, ranks)
    except Exception as error:
        result = {"error": type(error).__name__, "message": str(error)}
    (home / f"{name}-{size}-{rank}.json").write_text(json.dumps(result))


def main() -> None:
    home = Path(sys.argv[1])
    make_dataset(home / "data")
    # Without threads, once: what is imported on the way takes seconds, and every fork has it then.
    _features(Encoder(bundle=make_bundle(), workers=0), open_dataset(home / "data"))
    fork = multiprocessing.get_context("fork")
    for name, (sizes, _, _) in CASES.items():
        for size in sizes:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            world = [fork.Process(target=_process, args=(home, name, size, rank, port)) for rank in range(size)]
            for process in world:
                process.start()
            for process in world:
                process.join()


if __name__ == "__main__":
    main()
