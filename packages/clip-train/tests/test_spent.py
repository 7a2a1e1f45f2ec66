from __future__ import annotations

import time
from typing import Any

import pytest

import clip_core
from clip_core.train_pixels import TrainPixels
from clip_train.data.decode import Decoder
from clip_train.data.order import Order
from clip_train.data.shards import ShardSource
from clip_train.data.spent import Spent, Watch


def test_stages_add_up() -> None:
    watch = Watch()
    watch.mark("read")
    watch.mark("decode")
    watch.mark("read")
    first = watch.spent()
    assert (first.augment, first.tokenise) == (0.0, 0.0)
    assert min(first.read, first.decode) > 0
    assert Spent(1, 2, 3, 4).plus(Spent(1, 1, 1, 1)) == Spent(2, 3, 4, 5)


@pytest.mark.parametrize("slow", Spent._fields)
def test_a_batch_says_which_stage_was_slow(shards: str, monkeypatch: pytest.MonkeyPatch, slow: str) -> None:
    source = ShardSource(shards)
    tokenizer = clip_core.get_tokenizer("tiny")
    pixels = TrainPixels(clip_core.get_config("tiny").preprocess)
    made = Decoder(source, Order(0, len(source)), pixels, tokenizer)
    made.batch([(0, 0)])  # what is loaded at the first use takes longest

    def delayed(work: Any) -> Any:
        def call(*args: Any, **named: Any) -> Any:
            time.sleep(0.02)
            return work(*args, **named)

        return call

    owner, name = {
        "read": (source, "read"),
        "decode": (pixels, "open"),
        "augment": (pixels, "draw"),
        "tokenise": (made, "_tokenize"),
    }[slow]
    monkeypatch.setattr(owner, name, delayed(getattr(owner, name)))
    spent = made.batch([(0, position) for position in range(4)]).spent
    assert max(spent._fields, key=lambda field: getattr(spent, field)) == slow
    assert getattr(spent, slow) >= (0.02 if slow == "tokenise" else 0.08)
