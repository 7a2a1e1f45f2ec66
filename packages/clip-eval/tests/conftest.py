"""What several tests use: the digit sets, an untrained model, and data sets made to be wrong in one way."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image

import clip_core
from clip_core import Bundle
from clip_eval.datasets.digits import build_digits


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two held-out digit sets and 400 training pictures."""
    return build_digits(tmp_path_factory.mktemp("data") / "built", train_samples=400, samples_per_shard=150)


@pytest.fixture
def bundle() -> Bundle:
    """An untrained model, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return clip_core.create("tiny")


def make_png(number: int, edge: int = 32) -> bytes:
    """A picture that no other number has."""
    buffer = io.BytesIO()
    pixels = np.random.RandomState(number).randint(0, 256, (edge, edge, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def png() -> Callable[..., bytes]:
    """`png(number, edge=32)`: the bytes of a picture that no other number has."""
    return make_png


def write_shard(path: Path, samples: Iterable[dict[str, str | bytes]]) -> Path:
    """A tar of the samples, keys s0000000 and so on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path), encoder=False, mtime=0) as writer:
        for number, members in enumerate(samples):
            writer.write({"__key__": f"s{number:07d}", **members})
    return path


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `eval_world.py` filled: what real processes found, together, and before they were killed."""
    home = tmp_path_factory.mktemp("worlds")
    script = Path(__file__).with_name("eval_world.py")
    with (home / "output.txt").open("w") as output:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        ended = subprocess.run(
            [sys.executable, script, home], stdout=output, stderr=output, env=environment, timeout=300
        )
    assert ended.returncode == 0, (home / "output.txt").read_text()
    return home


MakeDataset = Callable[..., Path]


@pytest.fixture
def make_classification(tmp_path: Path) -> MakeDataset:
    """Writes a classification set of three classes; arguments change one thing at a time."""

    def make(
        labels: Iterable[str] = ("0", "1", "2", "1"),
        classnames: str = "cat\ndog\nowl\n",
        templates: str = "a photo of a {c}.\na drawing of a {c}.\n",
        nshards: str | None = "1\n",
        images: Iterable[bytes] | None = None,
        name: str = "animals",
    ) -> Path:
        folder = tmp_path / name
        labels = list(labels)
        pictures = list(images) if images is not None else [make_png(number) for number in range(len(labels))]
        write_shard(
            folder / "test" / "0.tar",
            [{"png": data, "cls": label.encode()} for data, label in zip(pictures, labels, strict=True)],
        )
        (folder / "classnames.txt").write_bytes(classnames.encode())
        (folder / "zeroshot_classification_templates.txt").write_bytes(templates.encode())
        if nshards is not None:
            (folder / "test" / "nshards.txt").write_bytes(nshards.encode())
        return folder

    return make


@pytest.fixture
def make_retrieval(tmp_path: Path) -> MakeDataset:
    """Writes a retrieval set from texts as they stand in the shard."""

    def make(texts: Iterable[str], images: Iterable[bytes] | None = None, name: str = "pairs") -> Path:
        folder = tmp_path / name
        texts = list(texts)
        pictures = list(images) if images is not None else [make_png(number) for number in range(len(texts))]
        write_shard(
            folder / "test" / "0.tar",
            [{"png": data, "txt": text.encode()} for data, text in zip(pictures, texts, strict=True)],
        )
        (folder / "dataset_type.txt").write_bytes(b"retrieval\n")
        (folder / "test" / "nshards.txt").write_bytes(b"1\n")
        return folder

    return make


@pytest.fixture
def make_people(tmp_path: Path) -> MakeDataset:
    """Writes a set that asks for hat (2 classes) and age (3); `test=6, train=24` are its splits and their sizes."""

    def make(about: bool = True, **splits: int) -> Path:
        folder = tmp_path / "people"
        for split, count in (splits or {"test": 6}).items():
            (folder / split).mkdir(parents=True)
            with webdataset.TarWriter(str(folder / split / "0.tar"), encoder=False, mtime=0) as shard:
                for number in range(count):
                    answers = io.BytesIO()
                    np.save(answers, np.asarray([number % 2, 2 - number % 3]))
                    members = {"png": make_png(number), "cls": b"0", "npy": answers.getvalue()}
                    shard.write({"__key__": f"s{number}", **members})
            (folder / split / "nshards.txt").write_text("1\n")
        (folder / "classnames.txt").write_text("hat:none\nhat:some\nage:young\nage:middle\nage:old\n")
        (folder / "zeroshot_classification_templates.txt").write_text("hat:a person with {c} hat\nage:a {c} person\n")
        if about:
            (folder / "about.json").write_text(json.dumps({"metadata_fields": ["hat", "age"]}))
        return folder

    return make


@pytest.fixture
def wds_files() -> Callable[..., dict[str, bytes]]:
    """`wds_files(shards=3, split="test")`: a classification set of two pictures in each shard, as names and bytes."""

    def made(shards: int = 3, split: str = "test") -> dict[str, bytes]:
        found = {
            "classnames.txt": b"cat\n\nowl\n",
            "zeroshot_classification_templates.txt": b"a {c}\n",
            f"{split}/nshards.txt": f"{shards}\n".encode(),
        }
        for shard in range(shards):
            buffer = io.BytesIO()
            with webdataset.TarWriter(buffer, encoder=False, mtime=0) as writer:
                for number in (2 * shard, 2 * shard + 1):
                    label = str(number % 3).encode()
                    writer.write({"__key__": f"s{number:07d}", "png": make_png(number), "cls": label})
            found[f"{split}/{shard}.tar"] = buffer.getvalue()
        return found

    return made


@pytest.fixture
def start_apart() -> Iterator[Callable[..., Any]]:
    """`start_apart(script, **told)`: a process that runs `script` under the name "apart" with the global TOLD, and the
    end of a pipe on which it sends to TOLD["answer"]. It is forked from one that has imported everything."""
    if sys.platform == "win32":
        pytest.skip("the processes are forked")
    started = []

    def start(script: Path, **told: object) -> Any:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["clip_eval.places.fetching", "clip_eval.building", "tqdm.auto", "pytest"])
        ours, theirs = context.Pipe(duplex=False)
        arguments = (str(script), {"TOLD": {**told, "answer": theirs}}, "apart")
        process = context.Process(target=runpy.run_path, args=arguments, daemon=True)
        process.start()
        theirs.close()
        started.append((process, ours))
        return process, ours

    yield start
    for process, ours in started:
        process.kill()
        process.join()
        ours.close()
