"""Time and memory of the losses over several processes (gloo) on this CPU, beside open_clip's with its exact flags.

    python bench_distributed_loss.py [--processes 2 4] [--pairs 1024] [--dim 512] [--rounds 3] [--json FILE]

Forward and backward of the loss alone, float32, `--pairs` on each process, one thread each. Open_clip's are
`ClipLoss(local_loss=True, gather_with_grad=True)` and `SigLipLoss()`. Every step runs in processes of its own, which
report the time from a common start to the end of the slowest and how far their peak of resident memory rose above the
features and their gradients (the mean over processes; all collectives, and the arithmetic at a small size, ran before).
The sides take turns; figures are medians.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from clip_train.loss import ContrastiveLoss

SIDES = {"clip": ("open_clip", "gather", "ring"), "siglip": ("open_clip", "gather", "ring")}


def build(kind: str, side: str, rank: int, world: int) -> Any:
    """The loss of one side."""
    if side != "open_clip":
        return ContrastiveLoss(kind, side)  # type: ignore[arg-type]
    from open_clip.loss import ClipLoss, SigLipLoss

    if kind == "siglip":
        return SigLipLoss(rank=rank, world_size=world)
    return ClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=world)


def features(pairs: int, dim: int, rank: int) -> list[Tensor]:
    """Both sides with room for their gradients, and a scale and a bias."""
    torch.manual_seed(rank)
    images = torch.nn.functional.normalize(torch.randn(pairs, dim))
    texts = torch.nn.functional.normalize(torch.randn(pairs, dim) + images)
    for side in (images, texts):
        side.requires_grad_().grad = torch.zeros_like(side)
    return [images, texts, torch.tensor(20.0, requires_grad=True), torch.tensor(-10.0, requires_grad=True)]


def step(rank: int, world: int, folder: str, kind: str, side: str, pairs: int, dim: int) -> None:
    """One process: writes its seconds, MiB, loss and norm of the gradient of its texts."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", world), rank=rank, world_size=world)
    loss = build(kind, side, rank, world)
    given = slice(None) if kind == "siglip" else slice(3)
    loss(*features(64, dim, rank)[given]).backward()
    inputs = features(pairs, dim, rank)[given]
    dist.barrier()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    value = loss(*inputs)
    value.backward()
    dist.barrier()
    seconds = time.perf_counter() - start
    unit = 1024 if sys.platform == "linux" else 1024**2
    found = {
        "seconds": seconds,
        "mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / unit,
        "loss": value.item(),
        "norm": inputs[1].grad.norm().item() if inputs[1].grad is not None else 0.0,
    }
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def measure(kind: str, side: str, world: int, pairs: int, dim: int) -> dict[str, float]:
    """One step of `world` processes: the slowest time, the mean of the rest."""
    with tempfile.TemporaryDirectory() as folder:
        # Forked, because nothing has been computed here yet; a spawned process would import for seconds.
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        arguments = (world, folder, kind, side, pairs, dim)
        processes = [context.Process(target=step, args=(rank, *arguments)) for rank in range(world)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            sys.exit(f"{kind} by {side} with {world} processes failed")
        found = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(world)]
    return {
        "seconds": max(one["seconds"] for one in found),
        **{key: statistics.mean(one[key] for one in found) for key in ("mib", "loss", "norm")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--pairs", type=int, default=1024)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    os.environ["GLOO_SOCKET_IFNAME"] = "lo" if sys.platform == "linux" else "lo0"
    import open_clip.loss
    import torch._dynamo  # here and once, before the processes fork: open_clip's collectives load it

    rows: list[dict[str, Any]] = []
    print(f"{'loss':8}{'processes':>10}{'side':>12}{'seconds':>10}{'share':>8}{'MiB':>8}{'share':>8}")
    for world in given.processes:
        for kind, sides in SIDES.items():
            runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
            for turn in range(given.rounds):
                for side in sides if turn % 2 else reversed(sides):
                    runs[side].append(measure(kind, side, world, given.pairs, given.dim))
            medians = {
                side: {key: statistics.median(one[key] for one in found) for key in ("seconds", "mib", "loss", "norm")}
                for side, found in runs.items()
            }
            peer = medians["open_clip"]
            for side, row in medians.items():
                for key in ("loss", "norm"):
                    if abs(row[key] - peer[key]) > 1e-4 * abs(peer[key]):
                        sys.exit(f"{kind} by {side}: {key} {row[key]} is not open_clip's {peer[key]}")
                share = {key: row[key] / peer[key] for key in ("seconds", "mib")}
                print(
                    f"{kind:8}{world:10}{side:>12}{row['seconds']:10.3f}{share['seconds']:8.2f}"
                    f"{row['mib']:8.0f}{share['mib']:8.2f}"
                )
                rows.append({"loss": kind, "processes": world, "side": side, **row, "share": share})
    where = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
        "pairs": given.pairs,
        "dim": given.dim,
    }
    print(", ".join(f"{key} {value}" for key, value in where.items()))
    if given.json:
        given.json.write_text(json.dumps({"machine": where, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
