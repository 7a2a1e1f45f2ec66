"""What is measured on the way: `EvaluationConfig`."""

from __future__ import annotations

import dataclasses
from typing import Literal

from clip_core.schema import Schema
from clip_train.config.flag import flag

__all__ = ["EvaluationConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig(Schema):
    """Validation, zero-shot and retrieval while training, after whole epochs; the training is not disturbed by it."""

    val_data: str | None = flag(None, help="pairs for the validation loss and retrieval, named as --train-data")
    val_num_samples: int | None = flag(None, help="take so many of them, the first; not given: all")
    val_frequency: int = flag(1, help="epochs between two validations, the last epoch always; 0: none")
    val_retrieval_chunk_size: int = flag(4096, help="captions that are ranked at once; results do not depend on it")
    val_retrieval_precision: Literal["fp32", "model"] = flag(
        "fp32", help="of the features that are ranked: fp32, or what the model computes in"
    )
    imagenet_val: str | None = flag(None, help="ImageNet's validation set: a folder of class folders, or of wds shards")
    imagenet_v2: str | None = flag(None, help="ImageNet v2, likewise")
    zeroshot_frequency: int = flag(2, help="epochs between two evaluations on ImageNet, the last epoch always; 0: none")
    eval_data: tuple[str, ...] = flag(
        (), help="data sets of clip-eval, by name or folder, that are evaluated after epochs, as time allows"
    )
    eval_share: float = flag(0.05, help="of the time, how much --eval-data may take, the last epoch not counted")

    def check(self) -> None:
        for name in ("val_frequency", "zeroshot_frequency"):
            self.require(getattr(self, name) >= 0, name, "0 or more")
        self.require(self.val_num_samples is None or self.val_num_samples >= 1, "val_num_samples", "1 or more, or None")
        self.require(self.val_retrieval_chunk_size >= 1, "val_retrieval_chunk_size", "1 or more")
        self.require(0 < self.eval_share <= 1, "eval_share", "above 0 and at most 1")
