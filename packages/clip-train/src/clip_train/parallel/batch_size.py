"""`--batch-size auto`: the largest batch of a process that its memory holds.

A forward and a backward pass are tried on noise and texts of full length. On a GPU, batches grow until one does not
fit; on a CPU, which would rather swap than say so, what autograd keeps for a sample is counted. Adam's memory and the
other processes' share are set aside. The number found is what the run's config.json states and what it is resumed with.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import clip_core
from clip_core.errors import ConfigError
from clip_core.normalize import Normalize
from clip_train.config import TrainConfig
from clip_train.data.decode import Batch
from clip_train.gradients import kept_statistics
from clip_train.objective import Features, Objective, build_objective
from clip_train.precision import autocast
from clip_train.world import World

__all__ = ["available_memory", "find_batch_size", "largest_that_fits"]

_log = logging.getLogger(__name__)

_MULTIPLE = 8
_SHARE_OF_GPU, _SHARE_OF_CPU = 0.92, 0.5
# What is alive for a moment beside what autograd keeps: gradients of activations, and copies in another dtype.
_PASSING = 2.0


def find_batch_size(
    config: TrainConfig, student: clip_core.Bundle, teacher: clip_core.Bundle | None, world: World, most: int
) -> int:
    """The number for every process: the least of what they find, at most `most`, a multiple of 8 where it is 8 or more.

    Raises `ConfigError` where not even 2 samples fit.
    """
    objective = build_objective(config.objective, student, teacher)

    def attempt(size: int) -> None:
        _attempt(config, student, objective, size, world.device)

    parameters = sum(p.nbytes for p in student.model.parameters() if p.requires_grad)
    aside = parameters * (4 if world.size > 1 else 3)  # Adam's two means, gradients, and what DDP sends
    if config.optim.ema_decay is not None:
        aside += 4 * sum(p.numel() for p in student.model.parameters() if p.requires_grad)  # the mean is float32
    on_gpu = world.device.type == "cuda"

    def measure() -> int:
        # Of all GPUs only that of this process: looking at another's generator takes memory of it.
        with torch.random.fork_rng([world.device] if on_gpu else []), kept_statistics(student.model):
            if on_gpu:
                found = largest_that_fits(_fits_on_gpu(attempt, aside, world.device), most)
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(world.device)
                return found
            room = _SHARE_OF_CPU * available_memory() / world.size - aside
            return min(most, int(room / _PASSING / _kept_bytes(attempt)))

    was_training = student.model.training
    student.model.train()
    try:
        found: int = min(world.gather(world.together(measure)))
    finally:
        student.model.train(was_training)
        student.model.zero_grad(set_to_none=True)
    if found < 2:
        raise ConfigError("--batch-size auto: not even 2 samples fit. Use a smaller model, or --grad-checkpointing.")
    found -= found % _MULTIPLE if found >= _MULTIPLE else 0
    _log.info("--batch-size auto: %d samples of each process fit", found)
    return found


def largest_that_fits(fits: Callable[[int], bool], most: int) -> int:
    """The largest size up to `most` for which `fits` holds, to an eighth of it; 0 where it does not hold for 2."""
    size = 2
    if not fits(size):
        return 0
    while size * 2 <= most and fits(size * 2):
        size *= 2
    step = size // 2
    while step >= max(1, size // 8):
        if size + step <= most and fits(size + step):
            size += step
        step //= 2
    return size


def available_memory() -> int:
    """Bytes that this host's processes can still take, by the system and by the limits of a container."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    meminfo, limit, used = map(Path, ("/proc/meminfo", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"))
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines() if ":" in line)
        found = min(found, int(lines["MemAvailable"].split()[0]) * 1024)
    if limit.exists() and used.exists() and (text := limit.read_text(encoding="ascii").strip()) != "max":
        found = min(found, max(0, int(text) - int(used.read_text(encoding="ascii"))))
    return found


def _fits_on_gpu(attempt: Callable[[int], None], aside: int, device: torch.device) -> Callable[[int], bool]:
    def fits(size: int) -> bool:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0]
        try:
            attempt(size)
        except torch.OutOfMemoryError:
            return False
        return torch.cuda.max_memory_allocated(device) - before + aside < _SHARE_OF_GPU * free

    return fits


def _kept_bytes(attempt: Callable[[int], None]) -> float:
    """What autograd keeps from the forward to the backward pass for one more sample."""

    def kept(size: int) -> int:
        seen: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            attempt(size)
        return sum(seen.values())

    return max(1.0, (kept(4) - kept(2)) / 2)


def _attempt(
    config: TrainConfig, student: clip_core.Bundle, objective: Objective, size: int, device: torch.device
) -> None:
    """A forward and a backward pass over `size` pairs of noise, by this process alone."""
    shape = student.config.image.image_size
    height, width = (shape, shape) if isinstance(shape, int) else shape
    length = student.config.text.context_length
    tokens = torch.randint(1, 100, (size, length), device=device)
    tokens[:, -1] = student.config.text.vocab_size - 1
    pixels = torch.randint(0, 256, (size, 3, height, width), dtype=torch.uint8, device=device)
    images = Normalize(student.config.preprocess.mean, student.config.preprocess.std)(pixels)
    batch = Batch(images, tokens, torch.full((size,), length), [], [])
    with autocast(config.run.precision, device):
        output = student.model(images, tokens, batch.lengths.tolist())
        objective.cached(batch)
        features = Features.of(output)
        # The losses over all pairs need little beside this, and would wait for the other processes.
        loss = (features.images * features.texts).sum() * features.scale
        for own in objective.own(output, batch).values():
            loss = loss + own
    loss.backward()  # type: ignore[no-untyped-call]
    student.model.zero_grad(set_to_none=True)
