from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from clip_core.errors import ConfigError, ImageError
from clip_train import DataConfig
from clip_train.data.csv import CsvSource
from clip_train.data.image_folder import ImageFolderSource
from clip_train.data.shards import ShardSource
from clip_train.data.source import Limited, open_source
from clip_train.data.synthetic import SyntheticSource


def kind_of(**fields: Any) -> Any:
    source = open_source(DataConfig(**fields))
    assert isinstance(source, Limited)
    return source.source


def test_auto_goes_by_extension(shards: str, tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text("filepath\ttitle\na.png\tb\n", encoding="utf-8")
    assert isinstance(kind_of(train_data=shards), ShardSource)
    assert isinstance(kind_of(train_data=str(table)), CsvSource)


def test_a_kind_that_is_given_wins(shards: str, tmp_path: Path) -> None:
    first = Path(shards.replace("{00000..00001}", "00000"))
    odd = tmp_path / "shard.dat"
    odd.write_bytes(first.read_bytes())
    assert isinstance(kind_of(train_data=str(odd), dataset_type="webdataset"), ShardSource)
    with pytest.raises(ConfigError, match="--dataset-type"):
        open_source(DataConfig(train_data=str(odd)))


def test_a_folder_is_one_of_images_and_a_command_writes_shards(tmp_path: Path, make: Any, shards: str) -> None:
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "1.png").write_bytes(make.png(1))
    assert isinstance(kind_of(train_data=str(tmp_path)), ImageFolderSource)
    source = kind_of(train_data=f"pipe:cat {shards}", data_cache=str(tmp_path / "cache"))
    assert isinstance(source, ShardSource)
    assert len(source) == 40
    assert isinstance(kind_of(dataset_type="synthetic", train_num_samples=3), SyntheticSource)


def test_images_with_too_many_pixels_are_found_before_decoding(tmp_path: Path, make: Any) -> None:
    path = make.shard(tmp_path / "x.tar", [{**make.pair(0), "png": make.png(0, 40)}, make.pair(1)])
    source = open_source(DataConfig(train_data=str(path), max_image_pixels=32 * 32))
    with pytest.raises(ImageError, match=r"s0000000: 40 x 40 pixels are more than --max-image-pixels 1024"):
        source.read(0)
    again = pickle.loads(pickle.dumps(source))
    assert again.read(1) == source.read(1)
    assert (again.fingerprint, again.groups) == (source.fingerprint, (str(path),))
    unlimited = open_source(DataConfig(train_data=str(path), max_image_pixels=0))
    assert unlimited.read(0)[0] == make.png(0, 40)


def test_what_does_nothing_for_a_kind_of_data_is_refused() -> None:
    for field, value in (("filter", "a > 1"), ("json_text_key", "a"), ("train_data_upsampling_factors", "1")):
        with pytest.raises(ConfigError, match=field):
            DataConfig(train_data="x", dataset_type="imagefolder", **{field: value})
    with pytest.raises(ConfigError, match="train_num_samples"):
        DataConfig(dataset_type="synthetic")
    with pytest.raises(ConfigError, match="train_data"):
        DataConfig()
