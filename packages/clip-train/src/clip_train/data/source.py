"""What a data set looks like to the loader: numbered samples, each an encoded image and a caption.

`open_source` picks the kind. What this room leaves out: order, decoding, augmentation.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from clip_core.errors import ConfigError, ImageError
from clip_train.config import DataConfig
from clip_train.data.pixels import image_size

__all__ = ["Limited", "Progress", "Source", "open_source"]

Progress = Callable[[int, int], object]
"""Takes how many files are indexed, and how many there are."""


class Source(Protocol):
    """Samples 0 to len - 1. Pickles, so that worker processes can hold one."""

    groups: tuple[str, ...]
    """The files that samples are counted by: shards, sub-folders, or the one csv file."""
    left_out: dict[str, int]
    """Group -> samples in it that lack an image or a caption altogether and have no number."""

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that are the same for the same samples in the same places of the order."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int, draw: int = 0) -> tuple[bytes, bytes]:
        """The encoded image and the caption in UTF-8 of sample `index`.

        draw: 64 keyed bits that decide where a sample has several captions. Raises `DataError` when the storage fails;
        `clip_core.ImageError` when this one image is not there.
        """
        ...

    def label(self, index: int) -> str:
        """What to call the sample in a log, for example "00000.tar:s0000012"."""
        ...

    def group(self, index: int) -> int:
        """Position in `groups` of the file that the sample counts for."""
        ...

    def facts(self) -> dict[str, Any]:
        """What was found when it was opened, for the summary: `data_fingerprint`, `left_out_by_shard`, and more."""
        ...


class Limited:
    """A source whose images of more than `pixels` pixels count as unusable, found before they are decoded."""

    def __init__(self, source: Source, pixels: int) -> None:
        self.source = source
        self._pixels = pixels

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "source":  # asked while it is unpickled
            raise AttributeError(name)
        return getattr(self.source, name)

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int, draw: int = 0) -> tuple[bytes, bytes]:
        """As the source reads; `ImageError` for an image that is too large."""
        image, caption = self.source.read(index, draw)
        size = image_size(image)
        if size is not None and size[0] * size[1] > self._pixels:
            raise ImageError(
                f"{self.source.label(index)}: {size[0]} x {size[1]} pixels are more than --max-image-pixels "
                f"{self._pixels}."
            )
        return image, caption


def open_source(
    config: DataConfig, *, rank: int = 0, ranks: int = 1, progress: Progress = lambda done, total: None
) -> Source:
    """The samples that `config.train_data` names, all files indexed and checked.

    Of `ranks` processes that call this at once each begins to index elsewhere; `progress` is told how many shards of
    how many are done. Raises `DataError` naming the file and the reason, `ConfigError` when the kind of data cannot be
    told.
    """
    source = _open(config, _kind(config), rank, ranks, progress)
    return Limited(source, config.max_image_pixels) if config.max_image_pixels else source


def _open(config: DataConfig, kind: str, rank: int, ranks: int, progress: Progress) -> Source:
    if kind == "csv":
        from clip_train.data.csv import CsvSource

        return CsvSource(
            config.train_data,
            separator=config.csv_separator,
            image_column=config.csv_img_key,
            caption_column=config.csv_caption_key,
        )
    if kind == "synthetic":
        from clip_train.data.synthetic import SyntheticSource

        return SyntheticSource(config.train_num_samples or 0)
    if kind == "imagefolder":
        from clip_train.data.image_folder import ImageFolderSource

        return ImageFolderSource(config.train_data, template=config.caption_template)
    if kind == "huggingface":
        from clip_train.data.huggingface import HuggingFaceSource

        return HuggingFaceSource(
            config.train_data,
            split=config.hf_split,
            image_column=config.hf_image_column,
            caption_column=config.hf_caption_column,
        )
    return _open_shards(config, rank, ranks, progress)


def _open_shards(config: DataConfig, rank: int, ranks: int, progress: Progress) -> Source:
    from clip_train.data.captions import Keys
    from clip_train.data.fetching import ShardCache
    from clip_train.data.filters import Filter
    from clip_train.data.rows import Selection
    from clip_train.data.shards import ShardSource

    folder = _cache_folder(config)
    return ShardSource(
        config.train_data,
        Selection(
            Keys.of(config.image_key, config.text_key, config.json_text_key, config.json_text_key_probs),
            Filter(config.filter) if config.filter is not None else None,
        ),
        cache=ShardCache(folder, limit=int(config.data_cache_gb * 1e9), stall=config.stall_timeout),
        index_folder=folder,
        max_bad_fraction=config.max_bad_fraction,
        rank=rank,
        ranks=ranks,
        progress=progress,
    )


def _cache_folder(config: DataConfig) -> Path:
    if config.data_cache is not None:
        return Path(config.data_cache).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clip-train"


def _kind(config: DataConfig) -> str:
    if config.dataset_type != "auto":
        return config.dataset_type
    # Of a mixture, the first part tells.
    name = config.train_data.split("::")[0].strip()
    if name.startswith("pipe:"):
        return "webdataset"
    if Path(name).is_dir():
        return "imagefolder"
    extension = name.split("?")[0].rsplit(".", 1)[-1].lower() if "." in name else ""
    kind = {"csv": "csv", "tsv": "csv", "tar": "webdataset"}.get(extension)
    if kind is None:
        raise ConfigError(
            f"Cannot tell from {config.train_data!r} what kind of data it is: auto knows .tar, .csv, .tsv, commands "
            "that begin with pipe: and folders of images. Give --dataset-type webdataset, csv, imagefolder, "
            "huggingface or synthetic."
        )
    return kind
