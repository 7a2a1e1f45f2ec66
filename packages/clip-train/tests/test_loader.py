from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import clip_core
from clip_core.errors import DataError
from clip_core.preprocess import build_transform
from clip_train.data.decode import Decoder
from clip_train.data.loader import StepDataset, iterate_batches
from clip_train.data.order import Order
from clip_train.data.shards import ShardSource

CPU = torch.device("cpu")


def decoder(pattern: str) -> Decoder:
    source = ShardSource(pattern)
    transform = build_transform(clip_core.get_config("tiny").preprocess, train=True)
    return Decoder(source, Order(0, len(source)), transform, clip_core.get_tokenizer("tiny"))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_batches_do_not_depend_on_the_number_of_workers(shards: str) -> None:
    made = decoder(shards)
    alone = list(iterate_batches(made, 16, range(6), workers=0, device=CPU))
    together = list(iterate_batches(made, 16, range(6), workers=2, device=CPU))
    assert len(alone) == len(together) == 6
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.tokens, other.tokens)


def test_batches_cross_from_one_pass_to_the_next_without_loss(shards: str) -> None:
    seen: list[tuple[int, int]] = []

    class Recorder(Decoder):
        def batch(self, slots: Any) -> Any:
            seen.extend(slots)

    made = decoder(shards)
    dataset = StepDataset(Recorder(made.source, made.order, made.transform, made.tokenizer), 16)
    for step in range(5):
        dataset[step]
    assert seen == [(epoch, position) for epoch in range(2) for position in range(40)]


def test_a_run_may_begin_at_any_step(shards: str) -> None:
    made = decoder(shards)
    whole = list(iterate_batches(made, 8, range(5), workers=0, device=CPU))
    tail = list(iterate_batches(made, 8, range(3, 5), workers=0, device=CPU))
    assert torch.equal(tail[0].images, whole[3].images)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_an_error_in_a_worker_keeps_its_type_and_its_words(tmp_path: Path, make: Any) -> None:
    path = make.shard(tmp_path / "x.tar", [make.pair(n) for n in range(8)])
    made = decoder(str(path))
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(DataError, match=r"x\.tar: short read") as caught:
        list(iterate_batches(made, 8, range(1), workers=1, device=CPU))
    assert "Traceback" not in str(caught.value)
