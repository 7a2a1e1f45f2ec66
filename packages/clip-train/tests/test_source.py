from __future__ import annotations

from pathlib import Path

import pytest

from clip_core.errors import ConfigError
from clip_train import DataConfig
from clip_train.data.csv import CsvSource
from clip_train.data.shards import ShardSource
from clip_train.data.source import open_source


def test_auto_goes_by_extension(shards: str, tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text("filepath\ttitle\na.png\tb\n", encoding="utf-8")
    assert isinstance(open_source(DataConfig(train_data=shards)), ShardSource)
    assert isinstance(open_source(DataConfig(train_data=str(table))), CsvSource)


def test_a_kind_that_is_given_wins(shards: str, tmp_path: Path) -> None:
    first = Path(shards.replace("{00000..00001}", "00000"))
    odd = tmp_path / "shard.dat"
    odd.write_bytes(first.read_bytes())
    assert isinstance(open_source(DataConfig(train_data=str(odd), dataset_type="webdataset")), ShardSource)
    with pytest.raises(ConfigError, match="--dataset-type"):
        open_source(DataConfig(train_data=str(odd)))
