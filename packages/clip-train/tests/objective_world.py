"""Objectives in two processes: `python objective_world.py FOLDER` saves what each gave as `FOLDER/<rank>.pt`.

`test_objective.py` compares with one process that has the whole batch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import clip_core
from clip_core.building import build
from clip_core.config import DecoderConfig
from clip_eval.processes import leave
from clip_train.config import ObjectiveConfig
from clip_train.data.decode import Batch
from clip_train.gradients import backward
from clip_train.objective import build_objective
from clip_train.world import World

PAIRS, PROCESSES = 8, 2
NAMES = ("captions", "teacher", "captions and teacher")


def captioner(vocabulary: int = 64) -> clip_core.Clip:
    """A CoCa of tiny's size, for so many ids."""
    tiny = clip_core.get_config("tiny")
    text = dataclasses.replace(tiny.text, width=96, heads=3, mlp_dim=192, class_token=True, vocab_size=vocabulary)
    decoder = DecoderConfig(
        context_length=text.context_length,
        vocab_size=text.vocab_size,
        width=96,
        layers=1,
        heads=3,
        mlp_dim=192,
        activation="gelu",
        start_id=text.vocab_size - 2,
        end_id=text.vocab_size - 1,
        pad_id=0,
    )
    torch.manual_seed(1)
    return build(dataclasses.replace(tiny, layout="nested", text=text, decoder=decoder))


def two_towers(seed: int) -> clip_core.Clip:
    torch.manual_seed(seed)
    return build(clip_core.get_config("tiny"))


def whole_batch(*, padded: bool) -> Batch:
    """Captions of one word to many, so that the halves of the batch have different numbers of words."""
    captions = [" ".join(["word"] * (1 + number * number)) for number in range(PAIRS)]
    tokens, lengths = clip_core.get_tokenizer("tiny").tokenize(captions)
    if padded:
        tokens = tokens % 63 + (tokens > 0)  # ids below 64, 0 still the padding
    images = torch.randn(PAIRS, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    longest = tokens.shape[1] if padded else int(lengths.clamp(max=tokens.shape[1]).max())
    return Batch(images, tokens[:, :longest].contiguous(), lengths.clamp(max=tokens.shape[1]), [], [])


def part(batch: Batch, start: int, stop: int) -> Batch:
    return Batch(*(value[start:stop] for value in batch[:3]), [], [])


def run(name: str, world: World, accumulated: int) -> dict[str, Tensor]:
    """Losses and gradients of the micro-batches of one process of `world`."""
    captions, taught = "captions" in name, "teacher" in name
    model = (captioner() if captions else two_towers(2)).double().train()
    teacher = clip_core.Bundle.of(two_towers(3).double()) if taught else None
    objective = build_objective(ObjectiveConfig(), clip_core.Bundle.of(model), teacher, world)
    batch = whole_batch(padded=captions)
    size = PAIRS // (world.size * accumulated)
    starts = [(number * world.size + world.rank) * size for number in range(accumulated)]
    spread: nn.Module = model if world.size == 1 else DistributedDataParallel(model)
    losses = backward(
        spread,
        objective,
        [part(batch, start, start + size) for start in starts],
        context=contextlib.nullcontext,
        seed=lambda number: None,
    )
    found = {key: world.sum(loss.double() / world.size) for key, loss in losses.items()}
    return {**found, **{key: value.grad for key, value in model.named_parameters() if value.grad is not None}}


def process(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(str(folder / "store"), 2), rank=rank, world_size=2)
    world = World(rank=rank, size=2)
    found: dict[str, Any] = {}
    for name in NAMES:
        for accumulated in (1, 2):
            found[f"{name} {accumulated}"] = run(name, world, accumulated)
    torch.save(found, folder / f"{rank}.pt")
    leave()


def main(folder: Path) -> int:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo" if sys.platform == "linux" else "lo0"
    importlib.import_module("torch._dynamo")
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    processes = [context.Process(target=process, args=(rank, folder)) for rank in range(PROCESSES)]
    for one in processes:
        one.start()
    for one in processes:
        one.join()
    return int(any(one.exitcode for one in processes))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
