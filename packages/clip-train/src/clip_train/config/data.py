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

    train_data: str = flag(
        "",
        help="shards, braces and :: allowed ('a/{00000..00041}.tar::s3://b/0.tar::pipe:cat c.tar'), or a csv file, a "
        "folder of images, a data set of Hugging Face; not given: synthetic pictures, with --dataset-type synthetic",
    )
    dataset_type: Literal["auto", "webdataset", "csv", "synthetic", "imagefolder", "huggingface"] = flag(
        "auto", help="kind of data; auto goes by file extension, and a folder is one of images"
    )
    train_num_samples: int | None = flag(
        None, help="samples that count as one epoch; not given: as many as the data holds"
    )
    train_data_upsampling_factors: str | None = flag(
        None, help="a factor for each part of --train-data, '1::2::0.5': how often its samples come in a pass"
    )
    dataset_resampled: bool = flag(False, help="draw samples with replacement instead of each once per pass")
    image_key: str = flag("jpg;png;jpeg;webp", help="shards: members that may be the image, the first that is there")
    text_key: str = flag("txt", help="shards: members that may be the caption, the first that is there")
    json_text_key: str | None = flag(
        None, help="shards: fields of the json member that may be the caption, 'a;b.c', the first that holds text"
    )
    json_text_key_probs: tuple[float, ...] | None = flag(
        None, help="weights of these fields: which one comes first is drawn for each sample and pass"
    )
    filter: str | None = flag(
        None, help="shards: which samples are used, by fields of the json member: \"similarity > 0.3 and nsfw == 'no'\""
    )
    max_image_pixels: int = flag(25_000_000, help="larger images are skipped and counted, before decoding; 0: no limit")
    max_bad_fraction: float = flag(0.1, help="stop when more than this part of the samples cannot be used")
    csv_separator: str = flag("\t", help="csv: the character between columns")
    csv_img_key: str = flag("filepath", help="csv: column with image paths, relative to the csv file or absolute")
    csv_caption_key: str = flag("title", help="csv: column with captions")
    caption_template: str = flag(
        "a photo of a {}.", help="imagefolder: caption of an image without a .txt file; {} is the name of its folder"
    )
    hf_split: str = flag("train", help="huggingface: the split")
    hf_image_column: str = flag("image", help="huggingface: column with images")
    hf_caption_column: str = flag("text", help="huggingface: column with captions, a text or a list of them")
    data_cache: str | None = flag(
        None, help="folder for remote shards and for indexes that cannot lie beside them (default: ~/.cache/clip-train)"
    )
    data_cache_gb: float = flag(100.0, help="most GB (10^9 bytes) of remote shards that are kept at a time")
    stall_timeout: float = flag(60.0, help="seconds after which a transfer of less than 1 kB/s is broken off")
    order_streams: int = flag(32, help="remote shards: how many are read side by side by all processes together")
    shuffle_window: int = flag(5000, help="remote shards: samples of a stream among which the order is drawn")
    image_decoder: Literal["simplejpeg", "pillow"] = flag(
        "simplejpeg", help="what decodes plain JPEGs, to the same pixels; Pillow decodes all others in any case"
    )
    image_resizer: Literal["pillow", "torch"] = flag(
        "pillow",
        help="what resizes; torch takes a quarter of the time, is up to 2 of 255 levels off Pillow 12, up to 13 off "
        "what Pillow 13 makes of tall photographs",
    )
    workers: int = flag(4, help="how many read and decode beside training; 0: the training process does it itself")
    worker_kind: Literal["process", "thread"] = flag(
        "process",
        help="what they are; threads share one index and copy nothing to the training process, but cannot draw "
        "timm's augmentation",
    )
    aug_cfg: AugmentConfig = dataclasses.field(
        default_factory=AugmentConfig,
        metadata={"help": "augmentation as key=value, for example scale='(0.5, 1.0)'"},
    )

    def check(self) -> None:
        is_synthetic = self.dataset_type == "synthetic"
        self.require(is_synthetic or bool(self.train_data.strip()), "train_data", "a path or a pattern, not empty")
        self.require(self.train_num_samples is None or self.train_num_samples > 0, "train_num_samples", "1 or more")
        self.require(
            not is_synthetic or self.train_num_samples is not None, "train_num_samples", "a number for synthetic data"
        )
        self.require(len(self.csv_separator) == 1, "csv_separator", "one character")
        self.require(self.workers >= 0, "workers", "0 or more")
        self.require(bool(self.image_key.strip(" ;")), "image_key", "extensions such as 'jpg;png'")
        self.require(bool(self.text_key.strip(" ;")), "text_key", "extensions such as 'txt'")
        self.require(self.max_image_pixels >= 0, "max_image_pixels", "0 (no limit) or more")
        self.require(0 <= self.max_bad_fraction <= 1, "max_bad_fraction", "0 to 1")
        self.require("{}" in self.caption_template, "caption_template", "a text with {} in it")
        self.require(self.data_cache_gb > 0, "data_cache_gb", "more than 0")
        self.require(self.stall_timeout > 0, "stall_timeout", "more than 0")
        self.require(self.order_streams > 0, "order_streams", "1 or more")
        self.require(self.shuffle_window > 0, "shuffle_window", "1 or more")
        self._check_what_only_shards_have()

    def _check_what_only_shards_have(self) -> None:
        if self.dataset_type in ("auto", "webdataset"):
            return
        # What does nothing would be taken for something that was done.
        for name in ("filter", "json_text_key", "train_data_upsampling_factors"):
            self.require(getattr(self, name) is None, name, f"nothing for --dataset-type {self.dataset_type}")
