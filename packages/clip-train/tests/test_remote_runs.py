"""Whole loaders on remote shards: workers, processes and resumed runs see what the order says, whoever fetches."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import clip_core
from clip_core.train_pixels import TrainPixels
from clip_train import DataConfig
from clip_train.data.decode import Batch, Decoder
from clip_train.data.loader import Share, iterate_batches
from clip_train.data.ordering import build_order
from clip_train.data.source import open_source

CPU = torch.device("cpu")
BATCH = 12


@pytest.fixture(scope="module")
def piped(tmp_path_factory: pytest.TempPathFactory, make: Any) -> str:
    folder = tmp_path_factory.mktemp("there")
    for shard in range(6):
        make.shard(folder / f"{shard}.tar", [make.pair(n) for n in range(shard * 10, shard * 10 + 10)])
    return f"pipe:echo {{0..5}} >> {folder}/log; cat {folder}/{{0..5}}.tar".replace("{0..5} >>", "x >>")


def decoder_of(pattern: str, cache: Path, **fields: Any) -> Decoder:
    config = DataConfig(train_data=pattern, data_cache=str(cache), order_streams=3, shuffle_window=8, **fields)
    source = open_source(config)
    pixels = TrainPixels(clip_core.get_config("tiny").preprocess)
    return Decoder(source, build_order(config, source, 5, BATCH), pixels, clip_core.get_tokenizer("tiny"))


def rows_of(batches: list[Batch]) -> list[bytes]:
    return [row.numpy().tobytes() for batch in batches for row in batch.tokens[:, :8]]


def test_workers_and_processes_make_the_same_batches_and_every_sample_comes_once(piped: str, tmp_path: Path) -> None:
    decoder = decoder_of(piped, tmp_path / "a")
    alone = list(iterate_batches(decoder, Share(BATCH), range(5), workers=0, device=CPU))
    assert len(set(rows_of(alone))) == len(rows_of(alone)) == 60
    # Another machine, with nothing in its cache, two workers, and half of every batch: from the middle of the run.
    for rank in range(2):
        other = decoder_of(piped, tmp_path / f"b{rank}")
        for path in (tmp_path / f"b{rank}" / "shards").glob("*.tar"):
            path.unlink()
        half = list(iterate_batches(other, Share(BATCH, rank, 2), range(2, 5), workers=2, device=CPU))
        expected = [batch.images[rank * 6 : rank * 6 + 6] for batch in alone[2:]]
        assert all(torch.equal(one.images, two) for one, two in zip(half, expected, strict=True))


def test_a_shard_is_fetched_once_for_its_index_and_once_per_pass_from_a_small_cache(piped: str, tmp_path: Path) -> None:
    log = Path(piped.split(">> ")[1].split(";")[0])
    decoder = decoder_of(piped, tmp_path / "a")
    size = decoder.source.largest  # type: ignore[attr-defined]
    log.write_text("")
    # Room for what three streams read at a time and bring ahead, and for two passes' shards not at all.
    small = decoder_of(piped, tmp_path / "a", data_cache_gb=5.5 * size / 1e9)
    for batch in range(10):
        small.batch(divmod(slot, 60) for slot in range(batch * BATCH, batch * BATCH + BATCH))
    fetched = log.read_text().count("x")
    assert fetched <= 2 * 6 + 6, Counter(log.read_text().split())


def test_drawn_samples_are_the_same_for_every_reader(piped: str, tmp_path: Path) -> None:
    one = decoder_of(piped, tmp_path / "a", dataset_resampled=True)
    other = decoder_of(piped, tmp_path / "b", dataset_resampled=True)
    first = list(iterate_batches(one, Share(BATCH), range(4), workers=1, device=CPU))
    second = list(iterate_batches(other, Share(BATCH), range(2, 4), workers=0, device=CPU))
    assert rows_of(first)[24:] == rows_of(second)
