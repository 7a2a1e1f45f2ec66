"""What is read: `DataConfig`."""

from __future__ import annotations

import dataclasses
from typing import Literal

from clip_core.preprocess import AugmentConfig
from clip_core.schema import Schema
from clip_train.config.flag import flag

__all__ = ["DataConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig(Schema):
    """Which images and captions are seen, and how they are read."""

    train_data: str = flag(help="shards, braces and :: allowed ('a/{00000..00041}.tar::b/0.tar'), or a csv file")
    dataset_type: Literal["auto", "webdataset", "csv"] = flag("auto", help="kind of data; auto goes by file extension")
    train_num_samples: int | None = flag(
        None, help="samples that count as one epoch; not given: as many as the data holds"
    )
    csv_separator: str = flag("\t", help="csv: the character between columns")
    csv_img_key: str = flag("filepath", help="csv: column with image paths, relative to the csv file or absolute")
    csv_caption_key: str = flag("title", help="csv: column with captions")
    workers: int = flag(4, help="processes that read and decode; 0: the training process does it itself")
    aug_cfg: AugmentConfig = dataclasses.field(
        default_factory=AugmentConfig,
        metadata={"help": "augmentation as key=value, for example scale='(0.5, 1.0)'"},
    )

    def check(self) -> None:
        self.require(bool(self.train_data.strip()), "train_data", "a path or a pattern that is not empty")
        self.require(self.train_num_samples is None or self.train_num_samples > 0, "train_num_samples", "1 or more")
        self.require(len(self.csv_separator) == 1, "csv_separator", "one character")
        self.require(self.workers >= 0, "workers", "0 or more")
