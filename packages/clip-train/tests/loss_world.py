"""The worlds of 1 to 4 processes in which the losses are tested: `python loss_world.py FOLDER`.

Four processes are started together; each joins every world that it has a place in, runs all cases there, and saves what
they gave as `FOLDER/<world>-<rank>.pt`: tensors, or the text of an error. `test_losses.py` knows what is right.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.util
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from clip_core.kernels import blocks
from clip_eval.processes import leave
from clip_train.loss import ContrastiveLoss, clip_loss, siglip_loss

SCALE, BIAS, LARGE_SCALE = 14.0, -3.0, 1000.0
KINDS = [(kind, scheme) for kind in ("clip", "siglip") for scheme in ("gather", "ring")]
PAIRS, WIDTH = 5, 8
Result = dict[str, Any]


def batch(pairs: int, width: int = WIDTH, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images and texts (pairs, width) of length 1 in float64, which agree a little."""
    generator = torch.Generator().manual_seed(seed)
    images, texts = (torch.randn(pairs, width, dtype=torch.float64, generator=generator) for _ in range(2))
    return F.normalize(images), F.normalize(images + 2 * texts)


def opposed(pairs: int) -> tuple[Tensor, Tensor]:
    """Images and texts in float32 with the least cosine in each pair, where CLIP's loss is the largest."""
    images = batch(pairs)[0].float()
    return images, -images


def part(values: Tensor, rank: int, world: int) -> Tensor:
    """Those of one process."""
    return values.chunk(world)[rank].clone()


def gradients_of(
    loss: Callable[..., Tensor],
    images: Tensor,
    texts: Tensor,
    *,
    frozen: str = "",
    dtype: torch.dtype = torch.float64,
    factor: float = 1.0,
    scale: float = SCALE,
    scale_shape: tuple[int, ...] = (),
    with_bias: bool = True,
) -> Result:
    """Loss and gradients; `frozen` names the inputs (i, t, s, b) that want none."""
    scalars = torch.float64 if dtype == torch.float64 else torch.float32
    values = {
        "i": images.to(dtype),
        "t": texts.to(dtype),
        "s": torch.full(scale_shape, scale, dtype=scalars),
        "b": torch.tensor(BIAS, dtype=scalars),
    }
    inputs = {name: value.clone().requires_grad_(name not in frozen) for name, value in values.items()}
    value = loss(*(inputs[name] for name in ("itsb" if with_bias else "its")))
    if value.requires_grad:
        (value * factor).backward()
    return {"loss": value.detach(), **{name: given.grad for name, given in inputs.items()}}


class TwoTowers(nn.Module):
    """A model with parameters in both towers, a scale and a bias."""

    def __init__(self, frozen: str = "") -> None:
        super().__init__()
        torch.manual_seed(5)
        self.image = nn.Sequential(nn.Linear(WIDTH, 12), nn.Tanh(), nn.Linear(12, 6)).double()
        self.text = nn.Sequential(nn.Linear(WIDTH, 10), nn.Tanh(), nn.Linear(10, 6)).double()
        self.scale = nn.Parameter(torch.tensor(SCALE, dtype=torch.float64).log())
        self.bias = nn.Parameter(torch.tensor(BIAS, dtype=torch.float64))
        for name in frozen.split():
            getattr(self, name).requires_grad_(False)

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return F.normalize(self.image(images)), F.normalize(self.text(texts)), self.scale.exp(), self.bias


def parameter_gradients(model: nn.Module) -> dict[str, Tensor]:
    return {
        name.removeprefix("module."): parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


class Counting(TorchDispatchMode):
    """Counts what is sent (bytes by dtype), what is multiplied (FLOP) and the largest tensor that is made.

    A collective is counted as its usual algorithm sends it, the same for whoever calls it: an all-gather sends a share
    to W - 1 others, a reduce-scatter and an all-to-all as much, a message goes to one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sent: Counter[str] = Counter()
        self.flop = 0
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, world = func.name(), dist.get_world_size()
        if name.startswith("c10d::"):
            operation = name.removeprefix("c10d::")
            if operation == "_allgather_base_":
                self._count([args[1]], world - 1)
            elif operation == "allgather_":
                self._count(args[1], world - 1)
            elif operation == "_reduce_scatter_base_":
                self._count([args[0]], world - 1)
            elif operation == "alltoall_":
                self._count(args[1], (world - 1) / world)
            elif operation == "alltoall_base_":
                self._count([args[1]], (world - 1) / world)
            elif operation == "scatter_":  # torch's all-to-all where the backend has none: one from each process
                self._count(args[1][0] if args[1] else [], (world - 1) / world)
            elif operation == "send":
                self._count(args[0], 1)
            elif operation != "recv_":
                raise NotImplementedError(f"{name} is not counted")
        out = func(*args, **(kwargs or {}))
        if name.split(".")[0].rstrip("_") in ("aten::mm", "aten::addmm"):
            left, right = [value for value in args if isinstance(value, Tensor)][-2:]
            self.flop += 2 * left.shape[0] * left.shape[1] * right.shape[1]
        if isinstance(out, Tensor):
            self.largest = max(self.largest, out.numel())
        return out

    def _count(self, tensors: Any, times: float) -> None:
        for tensor in tensors:
            self.sent[str(tensor.dtype)] += round(tensor.numel() * times) * tensor.element_size()


def open_clip_losses() -> Any:
    """open_clip's module of losses alone; the whole package takes seconds to import."""
    package = importlib.util.find_spec("open_clip")
    assert package is not None
    assert package.origin is not None
    spec = importlib.util.spec_from_file_location("peer_losses", Path(package.origin).with_name("loss.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def tile(side: int) -> Iterator[None]:
    before, blocks.TILE = blocks.TILE, side
    try:
        yield
    finally:
        blocks.TILE = before


def message(call: Callable[[], object]) -> str:
    """The kind and the text of what `call` raises."""
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


def losses(kind: str, scheme: str, rank: int, world: int) -> Iterator[tuple[str, Any]]:
    """What each case gives for one loss."""
    loss = ContrastiveLoss(kind, scheme)
    images, texts = (part(side, rank, world) for side in batch(PAIRS * world))
    yield "exact", gradients_of(loss, images, texts)
    yield "again", gradients_of(loss, images, texts)
    yield "without bias", gradients_of(loss, images, texts, with_bias=False)
    function = {"clip": clip_loss, "siglip": siglip_loss}[kind]
    yield "function", gradients_of(lambda *given: function(*given, scheme=scheme), images, texts)
    with tile(2):
        yield "tiles", gradients_of(loss, images, texts)
    yield "one pair", gradients_of(loss, *(part(side, rank, world) for side in batch(world)))
    order = torch.randperm(PAIRS * world, generator=torch.Generator().manual_seed(3))
    mine = part(order, rank, world)
    yield "shuffled", {"order": mine, **gradients_of(loss, *(side[mine] for side in batch(PAIRS * world)))}
    strided = images.T.contiguous().T, torch.cat([texts, texts], 1)[:, :WIDTH]
    yield "strided", gradients_of(loss, *strided)
    yield "scale (1,)", gradients_of(loss, images, texts, scale_shape=(1,))
    yield "numbers", loss(images, texts, SCALE, BIAS)
    yield "factor", gradients_of(loss, images, texts, factor=65536.0)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        yield str(dtype), gradients_of(loss, images, texts, dtype=dtype)
    far = (part(side, rank, world) for side in opposed(PAIRS * world))
    yield "opposed", gradients_of(loss, *far, dtype=torch.float32, scale=LARGE_SCALE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield "autocast", gradients_of(loss, images, texts, dtype=torch.float32)
    for frozen in ("i", "t", "it", "sb", "isb", "itsb"):
        yield f"frozen {frozen}", gradients_of(loss, images, texts, frozen=frozen)
    yield "texts frozen on one", gradients_of(loss, images, texts, frozen="t" if rank == 0 else "")
    yield "all frozen on one", gradients_of(loss, images, texts, frozen="itsb" if rank == world - 1 else "")
    yield "all frozen but on one", gradients_of(loss, images, texts, frozen="" if rank == world - 1 else "itsb")
    with torch.no_grad():
        yield "no_grad", loss(images.requires_grad_(), texts, torch.tensor(SCALE), torch.tensor(BIAS))
    yield "two backward", two_backward(loss, images.detach(), texts)
    for frozen in ("", "image", "text", "scale bias"):
        yield f"model {frozen}", end_to_end(loss, rank, world, frozen)
    yield "accumulated", accumulated(loss, rank, world)
    yield "one behind", one_behind(loss, images.detach(), texts, rank)


def two_backward(loss: ContrastiveLoss, images: Tensor, texts: Tensor) -> Tensor:
    image = images.clone().requires_grad_()
    value = loss(image, texts, SCALE, BIAS)
    value.backward(retain_graph=True)
    value.backward()
    assert image.grad is not None
    return image.grad


def end_to_end(loss: Callable[..., Tensor], rank: int, world: int, frozen: str = "") -> dict[str, Tensor]:
    model = DistributedDataParallel(TwoTowers(frozen))
    loss(*model(*(part(side, rank, world) for side in batch(PAIRS * world)))).backward()
    return parameter_gradients(model)


def accumulated(loss: ContrastiveLoss, rank: int, world: int) -> dict[str, Tensor]:
    """Two micro-batches, the first without DDP's averaging."""
    model = DistributedDataParallel(TwoTowers())
    for seed in (0, 1):
        with contextlib.nullcontext() if seed else model.no_sync():
            (loss(*model(*(part(side, rank, world) for side in batch(PAIRS * world, seed=seed)))) / 2).backward()
    return parameter_gradients(model)


def one_behind(loss: ContrastiveLoss, images: Tensor, texts: Tensor, rank: int) -> Tensor:
    """One process goes backward twice before another does once: there is nothing to wait for."""
    values = []
    for factor in (1.0, 0.5):
        image = (images * factor).requires_grad_()
        value = loss(image, texts, SCALE, BIAS)
        if rank == 0:
            value.backward()
        values.append((value, image))
    if rank:
        for value, _ in reversed(values):
            value.backward()
    return torch.stack([image.grad for _, image in values if image.grad is not None])


def refusals(rank: int, world: int) -> Iterator[tuple[str, Any]]:
    images, texts = batch(PAIRS)
    for kind, scheme in KINDS:
        loss = ContrastiveLoss(kind, scheme)
        uneven = PAIRS - (rank == world - 1)
        yield f"uneven {kind} {scheme}", message(lambda: loss(images[:uneven], texts[:uneven], SCALE, BIAS))  # noqa: B023
    loss = ContrastiveLoss()
    mine = texts[:2] if rank == 0 else texts
    yield "unpaired", message(lambda: loss(images, mine, SCALE))
    scale = torch.ones(2) if rank == world - 1 else torch.ones(())
    yield "no scalar", message(lambda: loss(images, texts, scale))
    half = images.float() if rank == 0 else images
    yield "dtypes", message(lambda: loss(half, half, SCALE))
    other = ContrastiveLoss("siglip" if rank == 0 else "clip")
    yield "kinds", message(lambda: other(images, texts, SCALE, BIAS))
    other = ContrastiveLoss("clip", "ring" if rank == 0 else "gather")
    yield "schemes", message(lambda: other(images, texts, SCALE, BIAS))
    odd = rank == world - 1
    for number in (float, torch.tensor):
        yield f"scales {number.__name__}", message(lambda: loss(images, texts, number(11.0 if odd else 10.0)))  # noqa: B023
        given = number(-9.0 if odd else -10.0)
        yield f"biases {number.__name__}", message(lambda: loss(images, texts, SCALE, given))  # noqa: B023
    given = None if odd else BIAS
    yield "a bias less", message(lambda: loss(images, texts, SCALE, given))
    nearly = torch.tensor(SCALE, dtype=torch.float64) * (1 + 1e-7 * rank)
    yield "last bits", message(lambda: loss(images, texts, nearly))
    yield "not numbers", message(lambda: loss(images, texts, float("nan")))
    yield "integers", message(lambda: loss(images.long(), texts.long(), SCALE))
    yield "second derivative", message(lambda: second_derivative(loss, images, texts))
    yield "after refusals", gradients_of(loss, images, texts)


def second_derivative(loss: ContrastiveLoss, images: Tensor, texts: Tensor) -> None:
    image = images.clone().requires_grad_()
    (first,) = torch.autograd.grad(loss(image, texts, SCALE), image, create_graph=True)
    first.sum().backward()


def groups(rank: int, world: int) -> Iterator[tuple[str, Any]]:
    """Two groups side by side, of every other process; in a world of three one of them has one member."""
    members = [list(range(start, world, 2)) for start in (0, 1)]
    joined = [dist.new_group(ranks) for ranks in members]
    mine = rank % 2
    images, texts = (part(side, rank // 2, len(members[mine])) for side in batch(PAIRS * len(members[mine]), seed=mine))
    for kind, scheme in KINDS:
        yield f"group {kind} {scheme}", gradients_of(ContrastiveLoss(kind, scheme, joined[mine]), images, texts)
    outside = ContrastiveLoss("clip", "gather", joined[1 - mine])
    yield "outside", message(lambda: outside(images, texts, SCALE))


def counts(peer: Any, rank: int, world: int) -> Iterator[tuple[str, Any]]:
    """What is sent and multiplied, here and in open_clip's loss, with features of both precisions."""
    pairs, width = 16, 256
    images, texts = (part(side, rank, world) for side in batch(pairs * world, width))
    sides: dict[str, Any] = {f"{kind} {scheme}": ContrastiveLoss(kind, scheme) for kind, scheme in KINDS}
    sides["open_clip"] = peer.ClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=world)
    sides["open_clip siglip"] = peer.SigLipLoss(rank=rank, world_size=world)
    for name, loss in sides.items():
        for dtype in (torch.float32, torch.bfloat16):
            with Counting() as counting:
                gradients_of(loss, images, texts, dtype=dtype, with_bias="siglip" in name)
            yield (
                f"count {name} {str(dtype).removeprefix('torch.')}",
                {
                    "bytes": dict(counting.sent),
                    "units": counting.flop / (2 * pairs * pairs * world * width),
                    "largest": counting.largest / (pairs * width),
                },
            )


def peers(peer: Any, rank: int, world: int) -> Iterator[tuple[str, Any]]:
    """open_clip's own losses, through its own collectives."""
    images, texts = (part(side, rank, world) for side in batch(PAIRS * world))
    given = {"rank": rank, "world_size": world}
    exact = peer.ClipLoss(local_loss=True, gather_with_grad=True, **given)
    yield "peer clip", gradients_of(exact, images, texts, with_bias=False)
    yield "peer model both flags", end_to_end(lambda x, y, s, b: exact(x, y, s) + 0 * b, rank, world)
    default = peer.ClipLoss(**given)
    yield "peer model no flag", end_to_end(lambda x, y, s, b: default(x, y, s) + 0 * b, rank, world)
    local = peer.ClipLoss(local_loss=True, **given)
    yield "peer model local_loss", end_to_end(lambda x, y, s, b: local(x, y, s) + 0 * b, rank, world)
    for way in ("bidir", "shift", "reduce", "gather"):
        yield f"peer siglip {way}", gradients_of(peer.SigLipLoss(dist_impl=way, **given), images, texts)


def absent(folder: Path, rank: int) -> str:
    """One of two processes fails before its loss and stays alive; how the other learns of it, and when."""
    done = folder / "heard"
    if rank == 1:
        while not done.exists():
            time.sleep(0.05)
        return ""
    start = time.monotonic()
    images, texts = batch(PAIRS)
    text = message(lambda: ContrastiveLoss()(images, texts, SCALE))
    done.touch()
    return f"{time.monotonic() - start:.1f} {text}"


def join(folder: Path, name: str, rank: int, world: int, seconds: float = 60) -> None:
    store = dist.FileStore(str(folder / f"store-{name}"), world)
    limit = datetime.timedelta(seconds=seconds)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=limit)


def run(rank: int, folder: Path) -> None:
    """All worlds of one process."""
    torch.set_num_threads(1)
    peer = open_clip_losses()
    for world in range(rank + 1, 5):
        join(folder, str(world), rank, world)
        found: Result = {}
        for kind, scheme in KINDS:
            found.update((f"{kind} {scheme} {name}", value) for name, value in losses(kind, scheme, rank, world))
        if world > 1:
            for cases in (refusals(rank, world), counts(peer, rank, world), peers(peer, rank, world)):
                found.update(cases)
        if world > 2:
            found.update(groups(rank, world))
        torch.save(found, folder / f"{world}-{rank}.pt")
        leave()
    if rank < 2:
        join(folder, "absent", rank, 2, seconds=3)
        torch.save(absent(folder, rank), folder / f"absent-{rank}.pt")
        os._exit(0)  # torch 2.6 waits for ever when it leaves a group in which something did not arrive


def main(folder: Path) -> int:
    """Exit code: 1 as soon as one of the processes has failed."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo" if sys.platform == "linux" else "lo0"
    if sys.platform == "linux":
        # Imported once, here: the first call of an operation or of DDP would do it in every process, for seconds each.
        importlib.import_module("torch._dynamo")
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    processes = [context.Process(target=run, args=(rank, folder), daemon=True) for rank in range(4)]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        if any(process.exitcode for process in processes):
            return 1  # the others, which wait for it, end with this process
        time.sleep(0.02)
    return int(any(process.exitcode for process in processes))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
