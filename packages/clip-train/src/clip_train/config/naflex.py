"""Pictures of any shape, cut into patches: `FlexConfig`, the flags of NaFlex."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from clip_core.schema import Schema
from clip_train.config.flag import flag

__all__ = ["FlexConfig"]

_LENGTHS = (128, 256, 576, 784, 1024)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FlexConfig(Schema):
    """NaFlex (Dehghani et al. 2023, Tschannen et al. 2025): what a batch is when pictures keep their shape.

    A length is the number of places for the patches of a picture; they are its tokens.
    """

    use_naflex: bool = flag(
        False,
        help="pictures keep their shape and are cut into patches, in each step as many as are drawn from "
        "--naflex-seq-lens; any vision transformer becomes a NaFlex tower. Augmentation is timm's (use_timm=True)",
    )
    force_naflex_vision: bool = flag(
        False, help="make a NaFlex tower of the model's vision transformer, with its weights; --use-naflex does so, too"
    )
    naflex_seq_lens: tuple[int, ...] | None = flag(
        None, help="most patches of a picture, one drawn for each step (not given: 128 256 576 784 1024)"
    )
    naflex_seq_len_probs: tuple[float, ...] | None = flag(None, help="their weights; not given: all alike")
    naflex_patch_sizes: tuple[int, ...] | None = flag(
        None,
        help="pixels of a patch's side, one drawn for each step; for another one than the model's own, its embedding "
        "is resampled (not given: the model's own)",
    )
    naflex_patch_size_probs: tuple[float, ...] | None = flag(None, help="their weights; not given: all alike")
    naflex_max_tokens_per_batch: int = flag(
        16384, help="patches of one process in one micro-batch at most: it has so many samples as fit, by the length"
    )
    naflex_batch_divisor: int = flag(8, help="that number of samples is a multiple of this, or 1 where none fit")
    naflex_batch_sizes: tuple[int, ...] | None = flag(
        None, help="samples of one process in one micro-batch for each of --naflex-seq-lens, in place of these two"
    )
    naflex_num_train_image_tokens: int | None = flag(
        None, help="patches of all processes that count as one epoch, in place of --train-num-samples"
    )
    naflex_loss_scale: Literal["none", "linear", "sqrt"] = flag(
        "none", help="multiply the loss by the samples of the micro-batch over --batch-size, or by the root of that"
    )

    @property
    def lengths(self) -> tuple[int, ...]:
        """What is drawn from."""
        return _LENGTHS if self.naflex_seq_lens is None else self.naflex_seq_lens

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Samples of one process in one micro-batch, for each of `lengths`."""
        if self.naflex_batch_sizes is not None:
            return self.naflex_batch_sizes
        divisor = self.naflex_batch_divisor
        return tuple(
            max(1, self.naflex_max_tokens_per_batch // (length * divisor) * divisor) for length in self.lengths
        )

    def loss_factor(self, samples: int, reference: int) -> float:
        """What the loss of a micro-batch of `samples` is multiplied by; `reference` is `--batch-size`."""
        if self.naflex_loss_scale == "none":
            return 1.0
        ratio = samples / reference
        return ratio if self.naflex_loss_scale == "linear" else math.sqrt(ratio)

    def check(self) -> None:
        for field in dataclasses.fields(self):
            # What does nothing would be taken for something that was done.
            if field.name.startswith("naflex_") and not self.use_naflex:
                self.require(
                    getattr(self, field.name) == field.default, field.name, f"{field.default} without use_naflex"
                )
        for values, weights in (
            ("naflex_seq_lens", "naflex_seq_len_probs"),
            ("naflex_patch_sizes", "naflex_patch_size_probs"),
        ):
            self._check_choice(values, weights)
        sizes = self.naflex_batch_sizes
        self.require(
            sizes is None or (len(sizes) == len(self.lengths) and min(sizes) >= 1),
            "naflex_batch_sizes",
            f"{len(self.lengths)} numbers of 1 or more, one for each length",
        )
        for name in ("naflex_max_tokens_per_batch", "naflex_batch_divisor"):
            self.require(getattr(self, name) >= 1, name, "1 or more")
        tokens = self.naflex_num_train_image_tokens
        self.require(tokens is None or tokens >= 1, "naflex_num_train_image_tokens", "1 or more")

    def _check_choice(self, values: str, weights: str) -> None:
        given, probs = getattr(self, values), getattr(self, weights)
        if given is not None:
            fits = bool(given) and min(given) >= 1 and len(set(given)) == len(given)
            self.require(fits, values, "different numbers of 1 or more")
        if probs is not None:
            count = len(self.lengths) if values == "naflex_seq_lens" else len(given or (0,))
            fits = len(probs) == count and min(probs) >= 0 and sum(probs) > 0
            self.require(fits, weights, f"{count} numbers, as many as there are values, not below 0 and not all 0")
