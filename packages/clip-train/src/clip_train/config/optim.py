"""How it is minimised: `OptimConfig`."""

from __future__ import annotations

import dataclasses
from typing import Literal

from clip_core.schema import Schema
from clip_train.config.flag import flag

__all__ = ["OptimConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig(Schema):
    """AdamW and its learning rate over time."""

    batch_size: int = flag(64, help="samples of one process in one micro-batch")
    epochs: int = flag(32, help="passes over the data (see --train-num-samples)")
    lr: float = flag(5e-4, help="peak learning rate")
    beta1: float = flag(0.9, help="Adam's decay of the mean of gradients")
    beta2: float = flag(0.98, help="Adam's decay of the mean of squares; 0.999 where the model is no ViT")
    eps: float = flag(1e-6, help="Adam's epsilon; 1e-8 where the model is no ViT")
    wd: float = flag(0.2, help="weight decay; gains, biases and the logit scale have none")
    warmup: int = flag(10_000, help="steps of linear warm-up")
    lr_scheduler: Literal["cosine", "const"] = flag("cosine", help="course of the learning rate after warm-up")
    accum_freq: int = flag(
        1, help="micro-batches of --batch-size in one step; the gradient is that of one batch of all of them"
    )
    grad_clip_norm: float | None = flag(None, help="clip the gradient to this norm; not given: no clipping")

    def check(self) -> None:
        self.require(self.batch_size >= 2, "batch_size", "2 or more: the loss compares the samples of a batch")
        self.require(self.epochs >= 1, "epochs", "1 or more")
        self.require(self.lr > 0, "lr", "above 0")
        for name in ("beta1", "beta2"):
            self.require(0 <= getattr(self, name) < 1, name, "0 or more and below 1")
        self.require(self.eps > 0, "eps", "above 0")
        self.require(self.wd >= 0, "wd", "0 or more")
        self.require(self.warmup >= 0, "warmup", "0 or more")
        self.require(self.accum_freq >= 1, "accum_freq", "1 or more")
        self.require(self.grad_clip_norm is None or self.grad_clip_norm > 0, "grad_clip_norm", "above 0, or None")
