"""What a data set looks like to the loader: numbered samples, each an encoded image and a caption.

`open_source` picks the kind. What this room leaves out: order, decoding, augmentation.
"""

from __future__ import annotations

from typing import Protocol

from clip_core.errors import ConfigError
from clip_train.config import DataConfig

__all__ = ["Source", "open_source"]


class Source(Protocol):
    """Samples 0 to len - 1. Pickles, so that worker processes can hold one."""

    groups: tuple[str, ...]
    """The files that samples are counted by: shards, or the one csv file."""
    left_out: dict[str, int]
    """Group -> samples in it that lack an image or a caption altogether and have no number."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[bytes, bytes]:
        """The encoded image and the caption in UTF-8 of sample `index`.

        Raises `DataError` when the storage fails; `clip_core.ImageError` when this one image is not there.
        """
        ...

    def label(self, index: int) -> str:
        """What to call the sample in a log, for example "00000.tar:s0000012"."""
        ...

    def group(self, index: int) -> int:
        """Position in `groups` of the file that the sample counts for."""
        ...


def open_source(config: DataConfig) -> Source:
    """The samples that `config.train_data` names, all files indexed and checked.

    Raises `DataError` naming the file and the reason, `ConfigError` when the kind of data cannot be told.
    """
    from clip_train.data.csv import CsvSource
    from clip_train.data.shards import ShardSource

    if _kind(config) == "csv":
        return CsvSource(
            config.train_data,
            separator=config.csv_separator,
            image_column=config.csv_img_key,
            caption_column=config.csv_caption_key,
        )
    return ShardSource(config.train_data)


def _kind(config: DataConfig) -> str:
    if config.dataset_type != "auto":
        return config.dataset_type
    extension = config.train_data.rsplit(".", 1)[-1].lower() if "." in config.train_data else ""
    kind = {"csv": "csv", "tsv": "csv", "tar": "webdataset"}.get(extension)
    if kind is None:
        raise ConfigError(
            f"Cannot tell from {config.train_data!r} what kind of data it is: auto knows .tar, .csv and .tsv. "
            "Give --dataset-type webdataset or --dataset-type csv."
        )
    return kind
