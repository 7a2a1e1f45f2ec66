"""Training in two processes that share the model: `python spread_world.py FOLDER SHARDS`.

Each saves what its runs gave as `FOLDER/<rank>.pt`; `test_sharding.py` compares the runs.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import clip_core
from clip_eval.processes import leave
from clip_train import TrainConfig, train
from clip_train.data.loader import StepDataset
from clip_train.parallel import gathered, gradient_norm, is_sharded, whole_weights
from clip_train.plan import prepare
from clip_train.trainer import Running, fit, start
from clip_train.world import World

FIXED = {
    "model": "tiny",
    "batch_size": 4,
    "epochs": 1,
    "lr": 1e-3,
    "warmup": 2,
    "workers": 0,
    "device": "cpu",
    "precision": "fp32",
    "grad_clip_norm": 0.5,
}
RUNS: dict[str, dict[str, Any]] = {
    "ddp": {"ema_decay": 0.5},
    "fsdp": {"fsdp": True, "ema_decay": 0.5},
    "fsdp kept": {"fsdp": True, "fsdp_no_reshard_after_forward": True},
    "ddp accumulated": {"accum_freq": 2, "epochs": 2},
    "fsdp accumulated": {"fsdp": True, "accum_freq": 2, "epochs": 2},
    "ddp bf16": {"precision": "amp_bf16"},
    "fsdp bf16": {"fsdp": True, "precision": "amp_bf16"},
    "ddp siglip locked": {"siglip": True},
    "fsdp siglip locked": {"siglip": True, "fsdp": True},
    "fsdp broken": {"fsdp": True},
    "ddp static": {"ddp_static_graph": True},
    "ddp compiled": {"torchcompile": True, "torchcompile_backend": "eager"},
    "fsdp compiled": {"fsdp": True, "torchcompile": True, "torchcompile_backend": "eager"},
    "ddp lora": {"lora_rank": 2, "ema_decay": 0.5},
    "fsdp lora": {"lora_rank": 2, "ema_decay": 0.5, "fsdp": True},
    "fsdp offloaded": {"fsdp": True, "fsdp_offload_cpu": True},
    "ddp pure": {"precision": "pure_bf16", "ema_decay": 0.5},
    "fsdp pure": {"precision": "pure_bf16", "ema_decay": 0.5, "fsdp": True},
}
Found = dict[str, Any]


def run(name: str, shards: str, world: World) -> Found:
    plan = prepare(TrainConfig.of(train_data=shards, **{**FIXED, **RUNS[name]}), world)
    if "locked" in name:
        plan.bundle.model.lock_image_tower(1)
    records: list[dict[str, Any]] = []
    running = start(plan, record=records.append)
    if "broken" in name:
        _break_one(running, world.rank)
    fit(running)
    found: Found = {key: [record[key] for record in records] for key in ("loss", "grad_norm", "updated", "logit_scale")}
    if name == "fsdp":
        found["encoded"] = encoded(running, world)
    if running.average is not None:
        found["mean"] = whole_weights(plan.bundle.model, world, running.average.state_dict())
    found["weights"] = whole_weights(plan.bundle.model, world)
    found["sharded"] = is_sharded(plan.bundle.model)
    found["numbers"] = sum(
        getattr(parameter, "to_local", lambda parameter=parameter: parameter)().numel()
        for parameter in plan.bundle.model.parameters()
    )
    found["held"] = sum(
        getattr(value, "to_local", lambda value=value: value)().numel()
        for state in running.optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
    return found


def _break_one(running: Running, rank: int) -> None:
    """The loss of the second process is NaN in the third step."""
    honest, calls = running.objective.joint, iter(range(100))

    def joint(*given: Any) -> dict[str, torch.Tensor]:
        factor = math.nan if next(calls) == 2 and rank == 1 else 1.0
        return {key: loss * factor for key, loss in honest(*given).items()}

    running.objective = dataclasses.replace(_Joint(running.objective), joint=joint)


@dataclasses.dataclass
class _Joint:
    other: Any
    joint: Callable[..., dict[str, torch.Tensor]] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.other, name)


@torch.no_grad()
def encoded(running: Running, world: World) -> Found:
    """Features of the sharded model: of all processes together, and of each by itself."""
    plan = running.plan
    model = plan.bundle.model.eval()
    batch = StepDataset(plan.decoder, plan.share)[0]
    assert not isinstance(batch, Exception)
    batch = plan.ready(batch)
    # Texts of one process that need many calls of the blocks, and of the other that need one.
    words = [" ".join(f"{number}{place}" for place in range(20)) for number in range(1 if world.rank else 400)]
    texts = clip_core.get_tokenizer("tiny").tokenize(words).tokens
    found = {"image": model.encode_image(batch.images), "text": model.encode_text(texts)}
    with gathered(model):
        for _ in range(1 + 2 * world.rank):
            found["image gathered"] = model.encode_image(batch.images)
            found["text gathered"] = model.encode_text(texts)
    found["image after"] = model.encode_image(batch.images)
    model.train()
    return found


def process(rank: int, folder: Path, shards: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(str(folder / "store"), 2), rank=rank, world_size=2)
    world = World(rank=rank, size=2, local_rank=rank, control=dist.new_group(backend="gloo"))
    found: Found = {name: run(name, shards, world) for name in RUNS}
    # A norm over pieces, some of which are empty on this process, beside a scalar.
    parameter = torch.nn.Parameter(torch.zeros(()))
    parameter.grad = torch.tensor(3.0)
    found["plain norm"] = gradient_norm([parameter])
    leave()
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": _PORT}
    os.environ.update({"MASTER_ADDR": "127.0.0.1", **{key: str(value) for key, value in place.items()}})
    found["folders"] = {name: whole_run(name, folder, shards) for name in WHOLE_RUNS}
    torch.save(found, folder / f"{rank}.pt")


WHOLE_RUNS: dict[str, dict[str, Any]] = {
    "pieces": {**RUNS["fsdp"], "fsdp_checkpoint": "sharded", "save_every_n_steps": 3},
    # Goes on from a checkpoint of the one before.
    "pieces again": {**RUNS["fsdp"], "resume": "pieces/checkpoints/step-00000003"},
    "replicas": RUNS["ddp"],
    "lora": {**RUNS["fsdp lora"], "save_every_n_steps": 3},
    "lora again": {**RUNS["fsdp lora"], "resume": "lora/checkpoints/step-00000003"},
    "pure": RUNS["fsdp pure"],
}


def whole_run(name: str, folder: Path, shards: str) -> str:
    """A run from its flags to its bundles; its folder."""
    fields = {**FIXED, **WHOLE_RUNS[name], "val_data": shards, "logs": str(folder), "name": name}
    if "resume" in fields:
        fields["resume"] = str(folder / str(fields["resume"]))
    return str(train(TrainConfig.of(train_data=shards, **fields)).folder)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


_PORT = _free_port()


def main(folder: Path, shards: str) -> int:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo" if sys.platform == "linux" else "lo0"
    importlib.import_module("torch._dynamo")
    importlib.import_module("torch.distributed.tensor")
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    processes = [context.Process(target=process, args=(rank, folder, shards), daemon=True) for rank in range(2)]
    for one in processes:
        one.start()
    while any(one.is_alive() for one in processes):
        if any(one.exitcode for one in processes):
            return 1
        processes[0].join(0.05)
    return int(any(one.exitcode for one in processes))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
