"""One pass through a tower (clip_eval.passes), and what is found of an earlier one (clip_eval.resuming)."""

from __future__ import annotations

import dataclasses

import torch

from clip_eval.encoder import Encoder
from clip_eval.passes import Clock, Computing, encode_images, encode_texts
from clip_eval.spread import NAME
from clip_eval.store import FeatureStore
from clip_eval.wds import open_dataset

HOW = Computing(precision="fp32")


def test_each_batch_says_which_rows_it_has_and_why_others_are_missing(bundle, make_classification, png) -> None:
    dataset = open_dataset(make_classification(images=[png(0), b"broken", png(2), png(3)]))
    clock, shown = Clock(), []
    parts = list(encode_images(bundle, dataset.samples, [range(1, 3), range(3, 4)], HOW, clock, shown.append))
    assert [part.places.tolist() for part in parts] == [[2], [3]]
    assert [len(part.features) for part in parts] == [1, 1]
    assert list(parts[0].left_out) == [1]
    assert NAME in parts[0].left_out[1]
    assert str(dataset.folder) not in parts[0].left_out[1]
    assert shown == [2, 1]
    assert clock.seconds["encode"] > 0
    assert clock.seconds["decode"] > 0
    assert clock.seconds["store"] == 0


def test_a_pass_leaves_nothing_that_could_not_be_trained_with(bundle) -> None:
    (part,) = encode_texts(bundle, ["a cat", "a dog"], [range(2)], HOW, Clock(), lambda count: None)
    assert not part.features.is_inference()
    assert not part.features.requires_grad


def test_batches_are_made_when_they_are_asked_for(bundle) -> None:
    shown: list[int] = []
    parts = encode_texts(bundle, ["a", "b", "c"], [range(2), range(2, 3)], HOW, Clock(), shown.append)
    assert shown == []
    next(parts)
    assert shown == [2]


def test_a_run_that_goes_on_with_anothers_features_says_what_both_were_made_with(bundle, worlds, tmp_path) -> None:
    whole = open_dataset(worlds / "data")
    begun = dataclasses.replace(whole, samples=whole.samples[:7])
    store = FeatureStore(tmp_path / "store")
    first = Encoder(bundle=bundle, batch_size=2, store=store).images(begun)
    second = Encoder(bundle=bundle, batch_size=5, store=store).images(whole)
    assert second.found == 7
    assert torch.equal(second.features[:7], first.features)
    assert [entry["batch_size"] for entry in second.made_with] == [2, 5]
    assert second.made_with[0] == first.made_with[0]
    third = Encoder(bundle=bundle, batch_size=64, store=store).images(whole)
    assert third.found == 22
    assert third.made_with == second.made_with
    assert torch.equal(third.features, second.features)
