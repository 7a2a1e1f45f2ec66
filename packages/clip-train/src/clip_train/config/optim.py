"""How it is minimised: `OptimConfig`."""

from __future__ import annotations

import dataclasses
from typing import Literal

from clip_core.schema import Schema
from clip_train.config.flag import KeyValues, flag

__all__ = ["OptimConfig"]


Patterns = tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig(Schema):
    """The optimiser, its groups of parameters, and its learning rate over time."""

    batch_size: int = flag(
        64, help="samples of one process in one micro-batch; auto (0): as many as memory holds, found by trying"
    )
    epochs: int = flag(32, help="passes over the data (see --train-num-samples)")
    opt: str = flag(
        "adamw", help="adamw, nadamw (NAdam with AdamW's weight decay), or timm/NAME for one of timm: timm/lion"
    )
    opt_kwargs: KeyValues = flag((), help="further arguments of the optimiser")
    opt_fallback_list: Patterns = flag(
        (), help="patterns of parameter names that timm's Muon optimisers leave to their AdamW"
    )
    lr: float = flag(5e-4, help="peak learning rate")
    beta1: float | None = flag(0.9, help="Adam's decay of the mean of gradients; with timm/NAME that optimiser's own")
    beta2: float | None = flag(
        0.98, help="Adam's decay of the mean of squares; 0.999 where the model is no ViT; with timm/NAME its own"
    )
    eps: float | None = flag(1e-6, help="Adam's epsilon; 1e-8 where the model is no ViT; with timm/NAME its own")
    momentum: float | None = flag(None, help="momentum of an optimiser of timm; not given: its own")
    wd: float = flag(0.2, help="weight decay; gains, biases and the logit scale have none")
    wd_exclude: Patterns = flag((), help="patterns of names of further parameters without weight decay: '*pos_embed*'")
    image_layer_decay: float | None = flag(
        None, help="learning rate of each layer of the image tower as a share of the next one's, head first; say 0.75"
    )
    text_layer_decay: float | None = flag(None, help="the same for the text tower")
    text_pooler_own_group: bool = flag(
        False, help="with --text-layer-decay: the pooling of a text tower is a layer of its own, below the projection"
    )
    warmup: int = flag(10_000, help="steps of linear warm-up")
    lr_scheduler: Literal["cosine", "const", "const-cooldown"] = flag(
        "cosine", help="course of the learning rate after warm-up"
    )
    epochs_cooldown: int | None = flag(None, help="last epochs in which const-cooldown takes the learning rate down")
    lr_cooldown_end: float = flag(0.0, help="learning rate at the end of the cooldown")
    lr_cooldown_power: float = flag(1.0, help="power of the cooldown's polynomial; 1 is a straight line")
    skip_scheduler: bool = flag(False, help="the learning rate is --lr from the first step to the last")
    accum_freq: int = flag(
        1, help="micro-batches of --batch-size in one step; the gradient is that of one batch of all of them"
    )
    grad_clip_norm: float | None = flag(None, help="clip the gradient to this norm; not given: no clipping")
    ema_decay: float | None = flag(
        None, help="keep a mean of the weights that decays by this per step, and leave it as bundle-ema; say 0.9999"
    )
    ema_every: int = flag(1, help="steps between updates of that mean, each worth as many steps")

    def check(self) -> None:
        self.require(
            self.batch_size == 0 or self.batch_size >= 2,
            "batch_size",
            "2 or more: the loss compares the samples of a batch; or 0: auto",
        )
        self.require(self.epochs >= 1, "epochs", "1 or more")
        own = self.opt in ("adamw", "nadamw")
        self.require(
            own or (self.opt.startswith("timm/") and len(self.opt) > 5),
            "opt",
            "adamw, nadamw, or timm/NAME with one of timm.optim.list_optimizers()",
        )
        self._check_adam(own)
        self._check_groups(own)
        self._check_schedule()
        self.require(self.accum_freq >= 1, "accum_freq", "1 or more")
        self.require(self.grad_clip_norm is None or self.grad_clip_norm > 0, "grad_clip_norm", "above 0, or None")
        self.require(self.ema_decay is None or 0 < self.ema_decay < 1, "ema_decay", "above 0 and below 1, or None")
        self.require(self.ema_every >= 1, "ema_every", "1 or more")
        self.require(self.ema_every == 1 or self.ema_decay is not None, "ema_every", "1 without ema_decay")

    def _check_adam(self, own: bool) -> None:
        self.require(self.lr > 0, "lr", "above 0")
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            self.require(value is not None or not own, name, f"a number with opt={self.opt}")
            self.require(value is None or 0 <= value < 1, name, "0 or more and below 1")
        self.require((self.beta1 is None) == (self.beta2 is None), "beta2", "given where beta1 is, and only there")
        self.require(self.eps is not None or not own, "eps", f"a number with opt={self.opt}")
        self.require(self.eps is None or self.eps > 0, "eps", "above 0")
        self.require(self.momentum is None or not own, "momentum", f"None with opt={self.opt}; timm/sgd has one")
        self.require(self.momentum is None or 0 <= self.momentum < 1, "momentum", "0 or more and below 1")

    def _check_groups(self, own: bool) -> None:
        self.require(self.wd >= 0, "wd", "0 or more")
        self.require(not (own and self.opt_fallback_list), "opt_fallback_list", "none but with timm's Muon optimisers")
        for name in ("image_layer_decay", "text_layer_decay"):
            value = getattr(self, name)
            self.require(value is None or 0 < value <= 1, name, "above 0 and at most 1")
        self.require(
            not self.text_pooler_own_group or self.text_layer_decay is not None,
            "text_pooler_own_group",
            "False without text_layer_decay, which it is about",
        )

    def _check_schedule(self) -> None:
        self.require(self.warmup >= 0, "warmup", "0 or more")
        cooldown = self.lr_scheduler == "const-cooldown"
        self.require(
            self.epochs_cooldown is not None or not cooldown, "epochs_cooldown", "a number with const-cooldown"
        )
        if self.epochs_cooldown is not None:
            self.require(0 < self.epochs_cooldown <= self.epochs, "epochs_cooldown", f"1 to epochs ({self.epochs})")
        self.require(self.lr_cooldown_end >= 0, "lr_cooldown_end", "0 or more")
        self.require(self.lr_cooldown_power > 0, "lr_cooldown_power", "above 0")
