from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from clip_core.errors import ConfigError
from clip_train import DataConfig
from clip_train.data.addresses import parse_factors
from clip_train.data.mixtures import MixedOrder, ResampledOrder
from clip_train.data.order import Order
from clip_train.data.ordering import build_order
from clip_train.data.source import open_source
from clip_train.data.windows import ResampledWindowOrder, WindowOrder


def order_of(batch: int = 8, **fields: Any) -> tuple[Order, Any]:
    config = DataConfig(**fields)
    source = open_source(config)
    return build_order(config, source, 0, batch), source


@pytest.fixture
def two_parts(tmp_path: Path, make: Any) -> str:
    make.shard(tmp_path / "a.tar", [make.pair(n) for n in range(10)])
    make.shard(tmp_path / "b.tar", [make.pair(n) for n in range(10, 16)])
    make.shard(tmp_path / "c.tar", [make.pair(n) for n in range(16, 20)])
    return f"{tmp_path}/a.tar::{tmp_path}/{{b,c}}.tar"


def test_which_order_goes_with_which_data(two_parts: str, tmp_path: Path) -> None:
    piped = "::".join(f"pipe:cat {part}" for part in two_parts.split("::"))
    cache = {"data_cache": str(tmp_path / "cache")}
    assert type(order_of(train_data=two_parts)[0]) is Order
    assert type(order_of(train_data=two_parts, train_data_upsampling_factors="1::1")[0]) is Order
    assert type(order_of(train_data=two_parts, train_data_upsampling_factors="1::2")[0]) is MixedOrder
    assert type(order_of(train_data=two_parts, dataset_resampled=True)[0]) is ResampledOrder
    assert type(order_of(train_data=piped, **cache)[0]) is WindowOrder
    assert type(order_of(train_data=piped, dataset_resampled=True, **cache)[0]) is ResampledWindowOrder
    assert type(order_of(dataset_type="synthetic", train_num_samples=9, dataset_resampled=True)[0]) is ResampledOrder


@pytest.mark.parametrize("prefix", ["", "pipe:cat "])
def test_factors_go_with_the_parts(two_parts: str, tmp_path: Path, prefix: str) -> None:
    order, source = order_of(
        train_data="::".join(prefix + part for part in two_parts.split("::")),
        train_data_upsampling_factors="0.5::3",
        data_cache=str(tmp_path / "cache"),
    )
    assert order.count == 35
    seen = Counter(source.read(order.sample(1, n))[1] for n in range(35))
    keys = {source.read(n)[1]: source.label(n) for n in range(20)}
    times = {keys[text].rpartition(":")[2]: count for text, count in seen.items()}
    assert sum(times.get(f"s{n:07d}", 0) for n in range(10)) == 5
    assert [times[f"s{n:07d}"] for n in range(10, 20)] == [3] * 10


@pytest.mark.parametrize(
    ("factors", "said"),
    [("1", "1 factors for 2 parts"), ("1::x", "numbers above 0"), ("1::0", "above 0"), ("", "above")],
)
def test_factors_that_do_not_fit_are_an_error(factors: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_factors(factors, 2)


def test_a_cache_that_is_too_small_is_warned_of(
    two_parts: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "clip_train"):
        order_of(
            train_data=f"pipe:cat {tmp_path}/a.tar::pipe:cat {tmp_path}/b.tar",
            data_cache=str(tmp_path / "cache"),
            data_cache_gb=0.00005,
        )
    assert "8 streams read 2 remote shards in turn" in caplog.text
    assert "--data-cache-gb 5e-05 is less than" in caplog.text
