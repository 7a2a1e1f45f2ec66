"""Batches of patches (NaFlex): how many images of which form a step has, and how they are made.

What this room leaves out: the draws (`batching`), and what is done to one picture (`clip_core.train_patches`).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping

from torch import Tensor

from clip_core import ClipConfig
from clip_core.config import NaFlexConfig
from clip_core.errors import ConfigError
from clip_core.preprocess_naflex import stack_patches
from clip_core.tokenizer import Tokenizer
from clip_core.train_patches import TrainPatches
from clip_train.config import AugmentConfig, TrainConfig
from clip_train.data.batching import Choice, DrawnBatching, Form
from clip_train.data.decode import Batch, Decode, Decoder
from clip_train.data.images import Images
from clip_train.data.order import Order
from clip_train.data.source import Source

__all__ = ["FlexDecoder", "flex_batching", "makers_of", "require_possible", "with_flex_augmentation"]


def with_flex_augmentation(config: TrainConfig) -> TrainConfig:
    """`config` with timm's augmentation, which --use-naflex comes with; itself without that flag."""
    if not config.naflex.use_naflex or config.data.aug_cfg.use_timm:
        return config
    return config.replace(aug_cfg=dataclasses.replace(config.data.aug_cfg, use_timm=True))


def require_possible(config: TrainConfig, model: ClipConfig) -> None:
    """Raise `ConfigError` for what --use-naflex cannot be together with."""
    if not config.naflex.use_naflex:
        return
    tokens = config.naflex.naflex_num_train_image_tokens
    for flag, wrong, why in (
        ("--batch-size auto", not config.optim.batch_size, "--naflex-max-tokens-per-batch says how large a batch is"),
        ("--distill-model", config.objective.distill_model is not None, "a teacher reads images of one size"),
        ("--image-resizer torch", config.data.image_resizer != "pillow", "timm resizes, with Pillow"),
        (f"--model {config.model.model}", model.decoder is not None, "a decoder reads all tokens of its image tower"),
        (
            "--lora-rank for the image tower, with other --naflex-patch-sizes than the model's own,",
            config.model.lora_rank is not None
            and config.model.lora_towers != "text"
            and set(config.naflex.naflex_patch_sizes or ()) - {getattr(model.image, "patch_size", 0)},
            "what is added to the embedding is not resampled with it",
        ),
        (
            "--train-num-samples",
            tokens is not None and config.data.train_num_samples and config.data.dataset_type != "synthetic",
            "--naflex-num-train-image-tokens says what an epoch is",
        ),
    ):
        if wrong:
            raise ConfigError(f"{flag} cannot be together with --use-naflex: {why}. Leave one of the two out.")


def flex_batching(config: TrainConfig, model: ClipConfig, processes: int) -> DrawnBatching:
    """The batches of all processes. Raises `ConfigError` for a step of a single sample, which compares nothing."""
    given, accumulated = config.naflex, config.optim.accum_freq
    sizes = [size * processes * accumulated for size in given.batch_sizes]
    if min(sizes) < 2:
        length = given.lengths[sizes.index(min(sizes))]
        if given.naflex_batch_sizes is not None:
            raise ConfigError(
                f"With --naflex-batch-sizes {' '.join(map(str, given.naflex_batch_sizes))} steps of length {length} "
                "have a single sample, and the loss compares the samples of a step. Give more."
            )
        raise ConfigError(
            f"With --naflex-max-tokens-per-batch {given.naflex_max_tokens_per_batch} and --naflex-batch-divisor "
            f"{given.naflex_batch_divisor} steps of length {length} have a single sample, and the loss compares the "
            "samples of a step. Allow more tokens, or lower the divisor."
        )
    tower = model.image
    assert isinstance(tower, NaFlexConfig)
    sides = (tower.patch_size,) if given.naflex_patch_sizes is None else given.naflex_patch_sizes
    return DrawnBatching(
        config.run.seed,
        Choice(given.lengths, given.naflex_seq_len_probs or (1.0,) * len(given.lengths)),
        sizes,
        Choice(sides, given.naflex_patch_size_probs or (1.0,) * len(sides)),
        accumulated=accumulated,
        in_tokens=given.naflex_num_train_image_tokens is not None,
    )


def makers_of(batching: DrawnBatching, model: ClipConfig, augment: AugmentConfig) -> dict[Form, TrainPatches]:
    """What makes the patches of each form that can be drawn."""
    return {
        Form(side, length): TrainPatches(model.preprocess, side, length, augment)
        for side in batching.patch_sizes.values
        for length in batching.lengths.values
    }


class FlexDecoder(Decoder):
    """Makes batches of patches; `batch` makes those of the largest form."""

    def __init__(
        self,
        source: Source,
        order: Order,
        makers: Mapping[Form, TrainPatches],
        tokenizer: Tokenizer,
        *,
        whole_rows: bool = False,
        decode: Decode | None = None,
    ) -> None:
        """`makers`: for each form; see `Decoder` for the rest."""
        self.makers = dict(makers)
        largest = max(self.makers, key=lambda form: (form.length, form.patch_size))
        super().__init__(source, order, self.makers[largest], tokenizer, whole_rows=whole_rows, decode=decode)

    def batch_of(self, form: Form, slots: Iterable[tuple[int, int]]) -> Batch:
        """See `Decoder.batch_of`."""
        decoder = copy.copy(self)
        decoder.pixels = self.makers[form]
        return decoder.batch(slots)

    def _stacked(self, images: list[Images]) -> dict[str, Tensor]:
        return stack_patches(images)
