"""Tries in seconds what a run will need for hours: data, agreement of the processes, their messages, room on the disk.

Each check is one function that gives a line of what it found, or raises an error that says what to do; an error of one
process is everybody's. It leaves nothing behind and changes no number of the run. What this room leaves out: what is
wrong with one process's configuration alone (`plan`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import logging
import platform
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from clip_core import DataError
from clip_core.errors import ConfigError, StorageError
from clip_train.checkpoint import published
from clip_train.config import TrainConfig
from clip_train.data.decode import Batch
from clip_train.data.images import describe, each, size_in_bytes
from clip_train.data.threads import AHEAD
from clip_train.plan import Plan
from clip_train.precision import autocast
from clip_train.world import World

__all__ = ["checksum", "fly", "preflight", "require_agreement"]

_log = logging.getLogger(__name__)

_SAMPLES = 8
_PACKAGES = ("clip_core", "clip_hub", "clip_eval", "clip_train")
_LIBRARIES = ("torch", "torchvision", "timm", "numpy", "PIL", "simplejpeg")
_CHECKPOINTS = 3


def preflight(plan: Plan) -> list[str]:
    """What was found, a line each. Every process calls it before its model is spread.

    Raises `ConfigError`, `DataError` or `StorageError` for what would end the run later.
    """
    began, world = time.perf_counter(), plan.world
    batch = world.together(lambda: _try_data(plan))
    found = [f"data: {_SAMPLES} samples read, decoded and tokenised, {describe(batch.images)}"]
    found.append(world.together(lambda: _try_model(plan, batch)))
    found.append(require_agreement(world, _facts(plan)))
    found.append(world.together(lambda: _try_messages(world)))
    found.append(world.first_does(lambda: _try_disk(plan)))
    hosts = world.gather(socket.gethostname())
    found.append(world.together(lambda: _try_shared_memory(plan, batch, hosts.count(socket.gethostname()))))
    _log.info("preflight: %s (%.1f s)", "; ".join(found), time.perf_counter() - began)
    return found


def _try_data(plan: Plan) -> Batch:
    """Samples from all over the data, others on each process, as one batch."""
    count = plan.decoder.order.count
    step = max(1, count // (_SAMPLES * plan.world.size))
    positions = [(number * plan.world.size + plan.world.rank) * step % count for number in range(_SAMPLES)]
    # A pass that no run reaches: the order has no meaning here.
    batch = plan.decoder.batch((0, position) for position in positions)
    if len(batch.skipped) == len(positions):
        label, reason = plan.source.label(batch.skipped[0].sample), batch.skipped[0].reason
        raise DataError(
            f"None of {len(positions)} samples from all over the data can be used; the first is {label}: {reason} "
            "Look at the data, and at the keys that say what is the image and what the caption."
        )
    return batch


@torch.no_grad()
def _try_model(plan: Plan, batch: Batch) -> str:
    """Two of the samples through the model."""
    model = plan.bundle.model
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        images = plan.decoder.pixels.normalize(each(batch.images, lambda value: value[:2].to(plan.device)))
        tokens = batch.tokens[:2].to(plan.device)
        with autocast(plan.config.run.precision, plan.device):
            output = model(images, tokens)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"The model {plan.config.model.model} cannot take {describe(batch.images)} and captions of "
            f"{batch.tokens.shape[1]} tokens: {str(error).splitlines()[0]} Look at --force-image-size, "
            "--force-context-length and --aug-cfg."
        ) from error
    finally:
        for module, mode in modes.items():
            module.training = mode
    for name, features in (("images", output.image_features), ("captions", output.text_features)):
        if not torch.isfinite(features).all():
            raise ConfigError(
                f"The initial weights make features of {name} that are not finite with --precision "
                f"{plan.config.run.precision}. Use --precision fp32, or other weights."
            )
    return f"model: features of {output.image_features.shape[1]} numbers"


def _facts(plan: Plan) -> dict[str, str]:
    versions = {name: getattr(sys.modules.get(name), "__version__", "not loaded") for name in _LIBRARIES}
    return {
        "configuration": plan.config.sha256,
        "data": plan.source.fingerprint,
        "weights": checksum(plan.bundle.model.state_dict()),
        "code": _code(),
        "python": platform.python_version(),
        **versions,
    }


_CURES = {
    "configuration": "Start all processes with the same flags.",
    "data": "All hosts have to see the same files: compare them, and delete indexes that are out of date.",
    "weights": "All hosts have to load the same weights: compare the files of --pretrained.",
    "code": "Install the same clip-train, clip-eval, clip-hub and clip-core on all hosts.",
}


def require_agreement(world: World, facts: Mapping[str, str]) -> str:
    """Raises `ConfigError` on every process where `facts` are not the same on all; names the odd ones and the cure."""
    everyone = world.gather(dict(facts))
    for name, value in everyone[0].items():
        odd = [rank for rank, theirs in enumerate(everyone) if theirs.get(name) != value]
        if odd:
            ranks = ", ".join(map(str, odd[:8])) + (f" and {len(odd) - 8} more" if odd[8:] else "")
            theirs = everyone[odd[0]].get(name, "none")
            raise ConfigError(
                f"The {name} differs: process 0 has {value[:16]}, process(es) {ranks} {theirs[:16]}. "
                + _CURES.get(name, f"Install the same {name} on all hosts.")
            )
    return f"agreement of {world.size} process(es) on {', '.join(_CURES)} and versions"


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """64 hexadecimal digits of names and values, computed where the tensors are."""
    digest = hashlib.sha256()
    for name, value in tensors.items():
        plain = value.detach().contiguous().flatten().view(torch.uint8)
        if plain.numel() % 4 == 0:
            plain = plain.view(torch.int32)
        ends = torch.cat([plain[:64], plain[-64:]]).tolist()
        digest.update(
            f"{name} {tuple(value.shape)} {value.dtype} {plain.sum(dtype=torch.int64).item()} {ends}".encode()
        )
    return digest.hexdigest()


def _code() -> str:
    digest = hashlib.sha256()
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            for path in sorted(Path(place).rglob("*.py")):
                digest.update(path.relative_to(place).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _try_messages(world: World) -> str:
    """One small message of each kind that training sends, with the answer checked."""
    if world.size == 1:
        return "messages: none, there is one process"
    rank, size, device = world.rank, world.size, world.device
    own = torch.full((size,), float(rank + 1), device=device)
    everyone = torch.arange(1.0, size + 1, device=device)
    kinds: dict[str, tuple[Callable[[], Tensor], Tensor]] = {
        "all_reduce": (lambda: world.sum(own.clone()), everyone.sum().expand(size)),
        "broadcast": (lambda: _broadcast(own.clone()), torch.ones(size, device=device)),
        "all_gather": (lambda: _into(dist.all_gather_into_tensor, own[:1], size), everyone),
        "reduce_scatter": (lambda: _into(dist.reduce_scatter_tensor, own, 1), everyone.sum()[None]),
        "all_to_all": (lambda: _into(dist.all_to_all_single, own, size), everyone),
        "send and receive": (lambda: _ring(own[:1], rank, size), everyone[(rank - 1) % size][None]),
    }
    for kind, (send, expected) in kinds.items():
        try:
            found = send()
            right = bool(torch.equal(found.cpu(), expected.cpu()))
        except RuntimeError as error:
            raise ConfigError(
                f"A message of the kind {kind} fails on {device}: {str(error).splitlines()[0]} Look at the network "
                "between the hosts (GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME name the interface) and at --dist-backend."
            ) from error
        if not right:
            raise ConfigError(
                f"A message of the kind {kind} arrives changed: {found.tolist()}. Look at --dist-backend."
            )
    world.barrier()
    return f"messages: {', '.join(kinds)}"


def _broadcast(value: Tensor) -> Tensor:
    dist.broadcast(value, src=0)
    return value


def _into(message: Callable[[Tensor, Tensor], object], value: Tensor, count: int) -> Tensor:
    arrived = torch.empty(count, device=value.device)
    message(arrived, value.contiguous())
    return arrived


def _ring(value: Tensor, rank: int, size: int) -> Tensor:
    arrived = torch.empty_like(value)
    operations = [dist.P2POp(dist.isend, value, (rank + 1) % size), dist.P2POp(dist.irecv, arrived, (rank - 1) % size)]
    for work in dist.batch_isend_irecv(operations):
        work.wait()
    return arrived


def _try_disk(plan: Plan) -> str:
    """The folder can be written to, and has room for the checkpoints that lie there at one time, and the bundle."""
    config = plan.config
    place = Path(config.run.logs).absolute()
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"preflight")
    except OSError as error:
        raise StorageError(f"--logs {config.run.logs} cannot be written: {error.strerror or error}.") from error
    state = plan.bundle.model.state_dict()
    weights = sum(value.nbytes for value in state.values())
    # Two moments of everything that is trained, and where there is one the mean of the weights.
    moments = 2 * sum(value.numel() * 4 for value in plan.bundle.model.parameters() if value.requires_grad)
    average = weights if config.optim.ema_decay is not None else 0
    one = weights + moments + average
    held = published(Path(config.run.logs) / config.run.name / "checkpoints") if config.run.name else []
    needed = weights + one * max(1, _CHECKPOINTS - len(held))
    free = shutil.disk_usage(place).free
    if free < needed:
        raise StorageError(
            f"--logs {config.run.logs} has room for {free / 1e6:.0f} MB; a checkpoint has {one / 1e6:.0f} MB, and with "
            f"those that lie there at one time and the bundle {needed / 1e6:.0f} MB are needed. Make room, or choose "
            "another folder."
        )
    return f"disk: {free / 1e9:.1f} GB free, a checkpoint has {one / 1e9:.3f} GB"


def _try_shared_memory(plan: Plan, batch: Batch, neighbours: int) -> str:
    """Room in /dev/shm for what the workers of this host have read ahead."""
    workers, place = plan.config.data.workers, Path("/dev/shm")
    if workers == 0 or plan.config.data.worker_kind == "thread" or sys.platform != "linux" or not place.is_dir():
        return "shared memory: not needed"
    share = size_in_bytes(batch.images) // len(batch.tokens) * plan.share.fullest
    # Beside what waits to be taken, each makes one.
    needed = share * workers * (AHEAD + 1) * neighbours
    free = shutil.disk_usage(place).free
    if free < needed:
        raise ConfigError(
            f"{place} has room for {free / 1e6:.0f} MB, and {neighbours} process(es) on this host with --workers "
            f"{workers} and batches of {plan.share.most} read up to {needed / 1e6:.0f} MB ahead. Give the container "
            "more shared memory (docker run --shm-size), or lower --workers or the batch."
        )
    return f"shared memory: {needed / 1e6:.0f} of {free / 1e6:.0f} MB"


def fly(config: TrainConfig) -> Sequence[str]:
    """The checks of the run that `config` describes, and nothing else."""
    from clip_train.plan import prepare
    from clip_train.run_folder import RunFolder
    from clip_train.watchdog import Watchdog
    from clip_train.world import join

    with join(config) as world, Watchdog(world, seconds=config.parallel.timeout_seconds) as watchdog:
        again = config.checkpoint.resume is not None
        world.first_does(lambda: RunFolder.check(config, again=again))
        plan = world.together(lambda: prepare(config, world, lambda done, total: watchdog.advance(done)))
        return preflight(dataclasses.replace(plan, config=config))
