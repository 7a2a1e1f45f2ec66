"""Everything that can be found wrong before training begins: device, model, weights, data. Writes nothing.

`prepare` turns a `TrainConfig` into a `Plan`, which holds all that the loop needs.
"""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
from typing import Any

import torch

import clip_core
from clip_core.device import resolve_device
from clip_core.errors import ConfigError
from clip_core.preprocess_naflex import build_patch_transform
from clip_core.towers.token_rows import needs_whole_rows
from clip_core.train_pixels import TrainPixels
from clip_train.config import ObjectiveConfig, TrainConfig
from clip_train.cores import own_cores
from clip_train.data.batching import Batching, EvenBatching
from clip_train.data.decode import Batch, Decoder
from clip_train.data.jpeg import decode_jpeg
from clip_train.data.loader import Share, require_thread_safe
from clip_train.data.naflex import FlexDecoder, flex_batching, makers_of, require_possible, with_flex_augmentation
from clip_train.data.ordering import build_order
from clip_train.data.source import Progress, Source, open_source
from clip_train.initial import augmentation, build_bundle, create_model
from clip_train.objective import check_teacher
from clip_train.parallel import check_compiler
from clip_train.parallel.batch_size import find_batch_size
from clip_train.world import World

__all__ = ["Plan", "prepare"]

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run that is ready to start."""

    config: TrainConfig
    """With the device that is really used."""
    bundle: clip_core.Bundle
    """The model with its initial weights, on the device."""
    teacher: clip_core.Bundle | None = None
    """A frozen model with trained weights, on the device, that the model learns from."""
    source: Source
    decoder: Decoder
    world: World
    share: Share
    """Which samples of each micro-batch this process sees."""
    per_epoch: int
    """What counts as an epoch: so many samples, or whatever else `batching` counts them in."""
    total_steps: int

    @property
    def batching(self) -> Batching:
        """Which slots a step has, of all processes."""
        return self.share.batching

    @property
    def global_batch(self) -> int:
        """Samples of one optimiser step at most, of all processes and micro-batches."""
        return self.batching.most

    def epochs_before(self, steps: int) -> int:
        """How many epochs have ended when `steps` steps are done."""
        return self.batching.passed(steps) // self.per_epoch

    def epoch_ended_by(self, step: int) -> int | None:
        """The number, from 1, of the epoch whose last sample was in `step` (from 1); None where it ended none.

        A step that ends several gives the last of them.
        """
        before, after = self.epochs_before(step - 1), self.epochs_before(step)
        return min(after, self.config.optim.epochs) if after > before else None

    @property
    def evaluated(self) -> clip_core.Bundle:
        """The bundle as it is evaluated while it is trained: where it learns from patches, it reads patches.

        They are of the model's own size, and as many as it takes by itself.
        """
        if not self.config.naflex.use_naflex:
            return self.bundle
        transform: Any = build_patch_transform(self.bundle.config)
        return dataclasses.replace(self.bundle, preprocess=transform)

    def ready(self, batch: Batch) -> Batch:
        """A batch on its device as the model takes it, the pixels normalised."""
        return batch._replace(images=self.decoder.pixels.normalize(batch.images))

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.world.device


def prepare(config: TrainConfig, world: World | None = None, progress: Progress = lambda done, total: None) -> Plan:
    """Check everything, index the data and build the model, for one process of `world` (None: there is one).

    `progress` is told how many files of how many are indexed, which takes long where there are many. Raises a
    `ClipError` for what the user can mend: a device, a model name, weights or data that are not there or do
    not fit.
    """
    _refuse_to_run_in_a_worker()
    world = world or World(device=resolve_device(config.run.device))
    device = world.device
    check_compiler(config.parallel)
    config = with_flex_augmentation(config)

    def index() -> Source:
        return open_source(config.data, rank=world.rank, ranks=world.size, progress=progress)

    # Without a watchdog the next message waits as long as torch lets it.
    source = world.together(index, patiently=True) if world.watched else index()
    bundle = build_bundle(config, device)
    _say_which_loss(config.objective, bundle.model)
    require_possible(config, bundle.config)
    teacher = _build_teacher(config.objective, bundle, device)
    if not config.optim.batch_size:
        most = max(2, len(source) // (world.size * config.optim.accum_freq))
        config = config.replace(batch_size=find_batch_size(config, bundle, teacher, world, most))
    whole_rows = needs_whole_rows(bundle.config)
    if teacher is not None:
        whole_rows = whole_rows or needs_whole_rows(teacher.config)
    batching, decoder = _batching_and_decoder(config, bundle, source, world.size, whole_rows)
    if config.data.workers and config.data.worker_kind == "thread":
        require_thread_safe(decoder)
    per_epoch = config.naflex.naflex_num_train_image_tokens or config.data.train_num_samples or decoder.order.count
    total_steps = batching.steps(config.optim.epochs * per_epoch)
    _log.info(
        "%d samples in %d files, %d steps of %s%d samples",
        len(source),
        len(source.groups),
        total_steps,
        "at most " if config.naflex.use_naflex else "",
        batching.most,
    )
    if world.is_first:  # all would say the same
        _warn(config, source, batching.most, total_steps)
    return Plan(
        config=config.replace(device=str(device)) if world.size == 1 else config,
        bundle=bundle,
        teacher=teacher,
        source=source,
        decoder=decoder,
        world=world,
        share=Share(batching, world.rank, world.size),
        per_epoch=per_epoch,
        total_steps=total_steps,
    )


def _warn(config: TrainConfig, source: Source, most: int, total_steps: int) -> None:
    """Say what is allowed and hardly meant; `most` are the samples of a step."""
    if config.optim.warmup >= total_steps:
        _log.warning(
            "the warm-up of %d steps is longer than the run of %d: the learning rate never reaches %g (--warmup)",
            config.optim.warmup,
            total_steps,
            config.optim.lr,
        )
    cores = own_cores()
    if config.data.workers > cores:
        _log.warning("%d workers on %d cores take time from each other (--workers)", config.data.workers, cores)
    if most > len(source):
        _log.warning("the batch of %d is larger than the data of %d samples", most, len(source))


def _batching_and_decoder(
    config: TrainConfig, bundle: clip_core.Bundle, source: Source, processes: int, whole_rows: bool
) -> tuple[Batching, Decoder]:
    """Which samples a step has, of all processes, and what makes its batches."""
    batching: Batching
    decode = decode_jpeg if config.data.image_decoder == "simplejpeg" else None
    if config.naflex.use_naflex:
        batching = flex_batching(config, bundle.config, processes)
        order = build_order(config.data, source, config.run.seed, batching.most)
        makers = makers_of(batching, bundle.config, augmentation(config))
        return batching, FlexDecoder(source, order, makers, bundle.tokenizer, whole_rows=whole_rows, decode=decode)
    batching = EvenBatching(config.optim.batch_size * processes, config.optim.accum_freq)
    order = build_order(config.data, source, config.run.seed, batching.most)
    pixels = TrainPixels(bundle.config.preprocess, augmentation(config), resizer=config.data.image_resizer)
    return batching, Decoder(source, order, pixels, bundle.tokenizer, whole_rows=whole_rows, decode=decode)


def _refuse_to_run_in_a_worker() -> None:
    # multiprocessing sets this, and looks at it itself, while a spawned process imports the main script again.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ConfigError(
            "Training was started again by a data worker that imported this script. Where workers are spawned (macOS, "
            'Windows) the call of clip_train.train belongs under `if __name__ == "__main__":`.'
        )


def _build_teacher(config: ObjectiveConfig, student: clip_core.Bundle, device: torch.device) -> clip_core.Bundle | None:
    if not config.distill_model:
        return None
    teacher = clip_core.Bundle.of(create_model(config.distill_model, config.distill_pretrained or "").to(device))
    check_teacher(teacher.config, student.config)
    _log.info("teacher %s, %s", config.distill_model, config.distill_pretrained)
    return teacher


def _say_which_loss(config: ObjectiveConfig, model: clip_core.Clip) -> None:
    flags = " and ".join(
        flag
        for flag, given in (("--local-loss", config.local_loss), ("--gather-with-grad", config.gather_with_grad))
        if given
    )
    if flags:
        _log.info("%s: not needed, the gradient of the loss is that of the whole batch with or without", flags)
    if model.logit_bias is not None and not config.siglip:
        _log.warning("the model has a bias, which CLIP's loss does not train; --siglip chooses the loss that does")
