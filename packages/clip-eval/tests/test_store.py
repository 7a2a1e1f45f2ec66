"""The store of features: found to the last bit or not at all, whole or not at all, and never another model's."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import clip_core
from clip_core import Bundle
from clip_core.errors import ConfigError, DataError, StorageError
from clip_eval import store as store_module
from clip_eval.encoder import Encoder
from clip_eval.fingerprints import FeatureKey
from clip_eval.store import FeatureStore, Stored
from clip_eval.wds import WdsDataset, open_dataset

TEXTS = ["a cat", "a dog", "an owl", "a cat"]


@pytest.fixture
def dataset(make_classification, png) -> WdsDataset:
    return open_dataset(make_classification(images=[png(0), b"broken", png(2), png(3)]))


def counted(bundle: Bundle) -> tuple[Bundle, list[int]]:
    """`bundle` with a transform that notes that it was called."""
    calls: list[int] = []

    def preprocess(source):
        calls.append(1)
        return bundle.preprocess(source)

    return dataclasses.replace(bundle, preprocess=preprocess), calls


def encoder(bundle: Bundle, root: Path, dtype="float32", **settings) -> Encoder:
    return Encoder(bundle=bundle, store=FeatureStore(root, dtype=dtype), batch_size=2, **settings)


def files(root: Path) -> list[Path]:
    return sorted(root.rglob("*.safetensors"))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_hit_is_the_cold_run_to_the_last_bit(bundle, dataset, tmp_path, dtype) -> None:
    plain = Encoder(bundle=bundle, batch_size=2)
    cold = encoder(bundle, tmp_path / "store", dtype)
    first, texts = cold.images(dataset), cold.texts(TEXTS)
    warm = encoder(bundle, tmp_path / "store", dtype)
    second = warm.images(dataset)
    assert (first.found, second.found) == (0, 4)
    assert second.seconds_encode == second.seconds_decode == 0
    assert torch.equal(first.features, second.features)
    assert torch.equal(first.kept, second.kept)
    assert first.excluded == second.excluded
    assert first.made_with == second.made_with
    assert torch.equal(warm.texts(TEXTS), texts)
    torch.testing.assert_close(first.features.norm(dim=1), torch.ones(3))
    largest = (first.features - plain.images(dataset).features).abs().max()
    assert largest == 0 if dtype == "float32" else 0 < largest < 1e-3
    assert {load_file(path)["features"].dtype for path in files(tmp_path)} == {getattr(torch, dtype)}
    assert len(files(tmp_path)) == 2


def test_what_was_left_out_is_named_where_the_data_lies_today(bundle, dataset, tmp_path) -> None:
    first = encoder(bundle, tmp_path / "store").images(dataset)
    shutil.copytree(dataset.folder, tmp_path / "moved" / "animals")
    moved = open_dataset(tmp_path / "moved" / "animals")
    second = encoder(bundle, tmp_path / "store").images(moved)
    assert second.found == 4
    assert "/moved/" in second.excluded[0].reason
    assert second.excluded[0].reason.replace("/moved/", "/") == first.excluded[0].reason


def change_weights(bundle: Bundle) -> Bundle:
    with torch.no_grad():
        bundle.model.visual.conv1.weight[0, 0, 0, 0] += 1e-3
    return bundle


def change_transform(bundle: Bundle) -> Bundle:
    return dataclasses.replace(bundle, preprocess=lambda source: bundle.preprocess(source).flip(-1))


def change_activation(bundle: Bundle) -> Bundle:
    model = clip_core.create("tiny").model
    model.load_state_dict(bundle.model.state_dict())
    config = bundle.config.with_activation("quick_gelu" if bundle.config.image.activation != "quick_gelu" else "gelu")
    return dataclasses.replace(bundle, config=config)


@pytest.mark.parametrize("change", [change_weights, change_transform, change_activation])
def test_another_model_or_transform_finds_nothing(bundle, dataset, tmp_path, change) -> None:
    encoder(bundle, tmp_path / "store").images(dataset)
    assert encoder(change(bundle), tmp_path / "store").images(dataset).found == 0


@pytest.mark.parametrize("settings", [{"dtype": "float16"}, {"precision": "amp_bf16"}, {"deterministic": True}])
def test_other_settings_find_nothing(bundle, dataset, tmp_path, settings) -> None:
    encoder(bundle, tmp_path / "store").images(dataset)
    assert encoder(bundle, tmp_path / "store", **settings).images(dataset).found == 0


def test_a_trained_text_tower_keeps_the_features_of_images_and_no_others(bundle, dataset, tmp_path) -> None:
    before = encoder(bundle, tmp_path / "store")
    before.images(dataset)
    old = before.texts(TEXTS)
    with torch.no_grad():
        bundle.model.text_projection.mul_(torch.linspace(0.5, 2, bundle.config.embed_dim))
        bundle.model.logit_scale.add_(1)
    after = encoder(bundle, tmp_path / "store")
    assert after.images(dataset).found == 4
    assert not torch.equal(after.texts(TEXTS), old)
    assert torch.equal(after.texts(TEXTS), Encoder(bundle=bundle, batch_size=2).texts(TEXTS))


def test_other_bytes_in_the_shard_find_nothing(bundle, make_classification, png, tmp_path) -> None:
    """Of the same length at the same place; and a part of the samples is not the whole."""
    first = open_dataset(make_classification())
    encoder(bundle, tmp_path / "store").images(first)
    second = open_dataset(make_classification(images=[png(number) for number in (9, 1, 2, 3)], name="others"))
    assert second.samples[0].members.keys() == first.samples[0].members.keys()
    assert encoder(bundle, tmp_path / "store").images(second).found == 0
    part = dataclasses.replace(first, samples=first.samples[1:])
    assert encoder(bundle, tmp_path / "store").images(part).found == 0


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [flip_a_byte, lambda path: os.truncate(path, 100), lambda path: path.write_bytes(b"")],
    ids=["a bit", "cut", "empty"],
)
def test_a_damaged_file_is_said_and_made_again(bundle, dataset, tmp_path, caplog, damage) -> None:
    first = encoder(bundle, tmp_path / "store").images(dataset)
    (path,) = files(tmp_path / "store")
    damage(path)
    with caplog.at_level(logging.WARNING, logger="clip_eval.store"):
        second = encoder(bundle, tmp_path / "store").images(dataset)
    assert f"{path} is damaged" in caplog.text
    assert second.found == 0
    assert torch.equal(first.features, second.features)
    assert encoder(bundle, tmp_path / "store").images(dataset).found == 4


def test_a_disk_that_is_full_is_said_once_and_changes_nothing(bundle, dataset, tmp_path, caplog, monkeypatch) -> None:
    expected = Encoder(bundle=bundle, batch_size=2).images(dataset)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_module.os, "fsync", full)
    cold = encoder(bundle, tmp_path / "store")
    with caplog.at_level(logging.WARNING, logger="clip_eval.store"):
        found = cold.images(dataset)
        cold.texts(TEXTS)
    assert torch.equal(found.features, expected.features)
    assert caplog.text.count("The store of features cannot be written") == 1
    assert "No space left on device" in cold.store.fault
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


def test_a_store_that_cannot_be_one(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="is a file"):
        FeatureStore(tmp_path / "file")
    with pytest.raises(ConfigError, match="'bfloat16'; allowed: float32, float16"):
        FeatureStore(tmp_path, dtype="bfloat16")  # type: ignore[arg-type]


def age(path: Path, seconds: float) -> None:
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns - int(seconds * 1e9)))


def test_hashes_of_shards_are_remembered_until_the_file_changes(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(store_module, "_UNSAFE", -1)  # else this test would have to wait
    path, store = tmp_path / "0.tar", FeatureStore(tmp_path / "store")
    path.write_bytes(b"one")
    first = store.shard(path)
    (note,) = (tmp_path / "store" / "shards").iterdir()
    said = json.loads(note.read_text())
    note.write_text(json.dumps({**said, "sha256": "remembered"}))
    assert store.shard(path).sha256 == "remembered"
    before = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as whoever restores times does
    second = store.shard(path)
    assert second.sha256 not in ("remembered", first.sha256)
    with pytest.raises(DataError, match="changed while it was read"):
        first.check_unchanged()
    note.write_text("{damaged")
    assert store.shard(path).sha256 == second.sha256
    with pytest.raises(DataError, match="cannot be read"):
        store.shard(tmp_path / "absent.tar")


def test_the_hash_of_a_file_that_has_just_changed_is_not_remembered(tmp_path) -> None:
    path, store = tmp_path / "0.tar", FeatureStore(tmp_path / "store")
    path.write_bytes(b"one")
    store.shard(path)
    assert not (tmp_path / "store").exists()


def test_a_shard_that_changes_while_it_is_encoded_is_an_error(bundle, dataset, tmp_path) -> None:
    spoiled, calls = counted(bundle)
    shard = Path(dataset.samples[0].shard)

    def preprocess(source):
        if len(calls) > 4:  # those of the fingerprint
            age(shard, 100)
        return spoiled.preprocess(source)

    with pytest.raises(DataError, match="changed while it was read"):
        encoder(dataclasses.replace(bundle, preprocess=preprocess), tmp_path / "store", workers=0).images(dataset)
    assert not files(tmp_path / "store")


@pytest.mark.skipif(sys.platform != "linux", reason="the processes are forked")
def test_an_outlook_counts_what_is_there(bundle, worlds, tmp_path) -> None:
    whole = open_dataset(worlds / "data")  # shards of 7, 1, 10 and 4
    dataset = dataclasses.replace(whole, samples=whole.samples[:7])
    made = encoder(bundle, tmp_path / "store")
    made.images(dataset)
    outlook = made.describe(whole)
    assert (outlook.images, outlook.images_found, outlook.shards, outlook.shards_found) == (22, 7, 4, 1)
    assert Encoder(bundle=bundle).describe(whole).images_found == 0
    assert made.estimate_seconds(whole) > 0


def test_old_unfinished_files_are_removed_and_fresh_ones_are_not(tmp_path) -> None:
    store, key = FeatureStore(tmp_path / "store"), FeatureKey("0" * 64, {})
    folder = store.path("texts", key, "a").parent
    folder.mkdir(parents=True)
    for name in (".old.partial", ".fresh.partial"):
        (folder / name).write_text("")
    age(folder / ".old.partial", 100_000)
    store.save("texts", key, "a", Stored(torch.ones(1, 2), torch.tensor([0])))
    assert sorted(path.name for path in folder.iterdir()) == [".fresh.partial", "a.safetensors", "key.json"]


@pytest.mark.skipif(sys.platform != "linux", reason="the processes are forked")
@pytest.mark.parametrize(("case", "kept"), [("killed-encoding", (7, 1)), ("killed-writing", (7,))])
def test_after_a_kill_only_the_shard_in_work_is_made_again(worlds: Path, tmp_path, bundle, case, kept) -> None:
    assert not (worlds / f"{case.replace('-', ' while ')}-1-0.json").exists()
    expected = json.loads((worlds / "same features-1-0.json").read_text())
    shutil.copytree(worlds / case, tmp_path / "store")
    assert len(files(tmp_path / "store")) == len(kept)
    counting, calls = counted(bundle)
    result = encoder(counting, tmp_path / "store").images(open_dataset(worlds / "data"))
    assert result.found == sum(kept)
    assert len(calls) == 4 + 20 - sum(kept)  # of the 22 pictures two do not decode
    assert result.features.tolist() == expected["images"]
    assert len(files(tmp_path / "store")) == 4
