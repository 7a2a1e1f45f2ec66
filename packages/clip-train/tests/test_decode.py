from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

import clip_core
from clip_core.errors import DataError
from clip_core.preprocess import AugmentConfig
from clip_core.train_pixels import TrainPixels
from clip_train.data.decode import Decoder
from clip_train.data.order import Order
from clip_train.data.shards import ShardSource


def decoder(pattern: str, seed: int = 0) -> Decoder:
    source = ShardSource(pattern)
    preprocess = clip_core.get_config("tiny").preprocess
    pixels = TrainPixels(preprocess, AugmentConfig(scale=(0.3, 1.0)))
    return Decoder(source, Order(seed, len(source)), pixels, clip_core.get_tokenizer("tiny"))


def test_images_and_captions_stay_together(shards: str) -> None:
    made = decoder(shards)
    batch = made.batch([(0, position) for position in range(40)])
    texts = [made.source.read(made.order.sample(0, position))[1].decode() for position in range(40)]
    assert batch.images.shape == (40, 3, 32, 32)
    assert batch.images.dtype == torch.uint8
    assert torch.equal(batch.tokens, made.tokenizer(texts)[:, : batch.tokens.shape[1]])
    assert (batch.skipped, batch.truncated) == ([], [])


def test_tokens_are_cut_to_the_longest_text_and_lose_nothing(shards: str) -> None:
    made = decoder(shards)
    tokens = made.batch([(0, 0), (0, 1)]).tokens
    assert tokens[:, -1].max() == made.tokenizer.eot_token_id
    assert tokens.shape[1] < made.tokenizer.context_length


def test_augmentation_is_keyed_by_seed_epoch_and_sample(shards: str) -> None:
    made = decoder(shards)
    order = made.order
    whole = made.batch([(0, position) for position in range(6)]).images
    assert torch.equal(made.batch([(0, 4)]).images[0], whole[4])
    # The same sample in the next pass is cut differently.
    again = next(p for p in range(40) if order.sample(1, p) == order.sample(0, 4))
    assert not torch.equal(made.batch([(1, again)]).images[0], whole[4])
    other = decoder(shards, seed=1)
    again = next(p for p in range(40) if other.order.sample(0, p) == order.sample(0, 4))
    assert not torch.equal(other.batch([(0, again)]).images[0], whole[4])


def test_every_generator_that_augmentation_draws_from_is_keyed(shards: str) -> None:
    augment = AugmentConfig(scale=(0.3, 1.0), use_timm=True, re_prob=0.5, auto_augment="rand-m9-mstd0.5-inc1")
    made = decoder(shards)
    made.pixels = TrainPixels(clip_core.get_config("tiny").preprocess, augment)
    whole = made.batch([(0, position) for position in range(6)]).images
    for position in (4, 1):
        assert torch.equal(made.batch([(0, position)]).images[0], whole[position])


def test_a_decoder_pickles(shards: str) -> None:
    made = decoder(shards)
    copy = pickle.loads(pickle.dumps(made))
    assert torch.equal(copy.batch([(0, 3)]).images, made.batch([(0, 3)]).images)


def bad_shard(folder: Path, make: Any) -> str:
    samples = [make.pair(n) for n in range(12)]
    samples[3]["png"] = samples[3]["png"][:200]
    samples[5]["png"] = b"no image"
    samples[7]["txt"] = b" \n"
    samples[9]["txt"] = b"\xff\xfe"
    return str(make.shard(folder / "x.tar", samples))


def test_bad_samples_are_counted_named_and_replaced(tmp_path: Path, make: Any) -> None:
    made = decoder(bad_shard(tmp_path, make))
    batch = made.batch([(0, position) for position in range(12)])
    assert len(batch.images) == len(batch.tokens) == 12
    reasons = {skipped.sample: skipped.reason for skipped in batch.skipped}
    assert sorted(reasons) == [3, 5, 7, 9]
    assert len(batch.skipped) == 4
    assert "x.tar:s0000003" in reasons[3]
    assert "caption is empty" in reasons[7]
    assert "not UTF-8" in reasons[9]


def test_a_substitute_is_a_pure_function_of_the_slot(tmp_path: Path, make: Any) -> None:
    pattern = bad_shard(tmp_path, make)
    whole = decoder(pattern).batch([(2, position) for position in range(12)])
    for position in reversed(range(12)):
        alone = decoder(pattern).batch([(2, position)])
        assert torch.equal(alone.images[0], whole.images[position])
        width = min(alone.tokens.shape[1], whole.tokens.shape[1])
        assert torch.equal(alone.tokens[0, :width], whole.tokens[position, :width])


def test_long_captions_are_cut_and_named(tmp_path: Path, make: Any) -> None:
    samples = [make.pair(n) for n in range(4)]
    samples[2]["txt"] = b"a long story " * 40
    made = decoder(str(make.shard(tmp_path / "x.tar", samples)))
    batch = made.batch([(0, position) for position in range(4)])
    assert batch.truncated == [2]
    assert batch.tokens.shape == (4, made.tokenizer.context_length)
    assert batch.lengths[2] == made.tokenizer.context_length


def test_lengths_are_those_of_the_captions(shards: str) -> None:
    made = decoder(shards)
    batch = made.batch([(0, position) for position in range(16)])
    end = made.tokenizer.vocab_size - 1
    assert batch.lengths.shape == (16,)
    assert batch.lengths.device.type == "cpu"
    assert int(batch.lengths.max()) == batch.tokens.shape[1]
    for row, length in zip(batch.tokens.tolist(), batch.lengths.tolist(), strict=True):
        assert row[length - 1] == end
        assert not any(row[length:])


def test_a_caption_that_just_fits_is_not_called_cut(tmp_path: Path, make: Any) -> None:
    samples = [make.pair(0), make.pair(1)]
    samples[0]["txt"] = b"a " * 30
    samples[1]["txt"] = b"a " * 31
    made = decoder(str(make.shard(tmp_path / "x.tar", samples)))
    assert made.tokenizer.context_length == 32
    assert made.batch([(0, 0), (0, 1)]).truncated == [1]


def test_nothing_usable_is_an_error_that_names_a_sample_and_a_reason(tmp_path: Path, make: Any) -> None:
    samples = [{**make.pair(n), "txt": b""} for n in range(3)]
    made = decoder(str(make.shard(tmp_path / "x.tar", samples)))
    with pytest.raises(DataError, match=r"x\.tar:s000000\d: the caption is empty\. None of 3 other samples"):
        made.batch([(0, 0)])
