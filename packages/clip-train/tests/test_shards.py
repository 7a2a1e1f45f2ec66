from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import pytest

from clip_core.errors import DataError, ImageError
from clip_train.data import shards
from clip_train.data.shards import ShardSource, expand_shards


def test_braces_lists_and_stars(tmp_path: Path) -> None:
    for name in ("b.tar", "a.tar"):
        (tmp_path / name).touch()
    assert expand_shards("x/{00000..00002}.tar") == ["x/00000.tar", "x/00001.tar", "x/00002.tar"]
    assert expand_shards("x/{a,b}.tar::y/1.tar") == ["x/a.tar", "x/b.tar", "y/1.tar"]
    assert expand_shards(f"{tmp_path}/*.tar") == [f"{tmp_path}/a.tar", f"{tmp_path}/b.tar"]


def test_a_backslash_belongs_to_the_path() -> None:
    assert expand_shards(r"C:\data\train\{00000..00001}.tar") == [
        r"C:\data\train\00000.tar",
        r"C:\data\train\00001.tar",
    ]


def test_the_index_holds_no_object_per_sample(tmp_path: Path, make: Any) -> None:
    keys = ["a", "folder/ä-long-one", "b", "zebra"]
    path = make.shard(tmp_path / "x.tar", [{**make.pair(n), "__key__": key} for n, key in enumerate(keys)])
    source = ShardSource(str(path))
    assert [source.label(n) for n in range(4)] == [f"{path}:{key}" for key in keys]
    held = [value for value in vars(source).values() if hasattr(value, "__len__") and len(value) >= len(source)]
    assert held
    for value in held:
        memoryview(value)  # one piece of memory; a list or a dict is none


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("x/{0..1.tar", "not a pattern"),
        ("::", "names no shard"),
        ("nowhere/*.tar", "nowhere/.*no file matches"),
        ("a.tar::a.tar", "a.tar: named twice"),
    ],
)
def test_a_pattern_that_names_nothing_is_an_error(pattern: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        expand_shards(pattern)


def test_samples_are_read_from_their_shards(shards: str, make: Any) -> None:
    source = ShardSource(shards)
    assert len(source) == 40
    assert source.read(30) == (make.png(30), make.pair(30)["txt"])
    assert (source.group(23), source.group(24)) == (0, 1)
    assert source.label(30) == f"{source.groups[1]}:s0000030"
    copy = pickle.loads(pickle.dumps(source))
    assert copy.read(3) == source.read(3)


def test_a_missing_shard_is_named(shards: str) -> None:
    with pytest.raises(DataError, match=r"00002\.tar: no such file"):
        ShardSource(shards.replace("00001}", "00002}"))


def test_a_shard_that_is_no_tar_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"this is not a tar" * 100)
    with pytest.raises(DataError, match=r"x\.tar: not a readable tar"):
        ShardSource(f"{tmp_path}/x.tar")


@pytest.mark.parametrize("lacks", ["png", "txt"])
def test_a_shard_without_images_or_captions_is_named(tmp_path: Path, lacks: str, make: Any) -> None:
    samples = [{k: v for k, v in make.pair(n).items() if k != lacks} for n in range(3)]
    path = make.shard(tmp_path / "x.tar", samples)
    with pytest.raises(DataError, match=r"x\.tar: no sample in it has both an image .* it holds 3 samples"):
        ShardSource(str(path))


def test_an_empty_shard_is_named(tmp_path: Path, make: Any) -> None:
    path = make.shard(tmp_path / "x.tar", [])
    with pytest.raises(DataError, match=r"x\.tar"):
        ShardSource(str(path))


def test_samples_that_lack_a_member_are_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, make: Any
) -> None:
    path = make.shard(tmp_path / "x.tar", [make.pair(0), {"__key__": "alone", "png": make.png(1)}, make.pair(2)])
    with caplog.at_level(logging.WARNING, "clip_train"):
        source = ShardSource(str(path))
    assert len(source) == 2
    assert source.left_out == {str(path): 1}
    assert "left out 1 of 3" in caplog.text
    assert "'alone'" in caplog.text


def test_a_shard_that_was_cut_after_the_index_loses_samples_and_not_the_run(tmp_path: Path, make: Any) -> None:
    path = make.shard(tmp_path / "x.tar", [make.pair(n) for n in range(4)])
    source = ShardSource(str(path))
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ImageError, match="short read"):
        source.read(3)


def test_a_shard_that_is_gone_ends_the_run(tmp_path: Path, make: Any) -> None:
    path = make.shard(tmp_path / "x.tar", [make.pair(n) for n in range(4)])
    source = ShardSource(str(path))
    path.unlink()
    with pytest.raises(DataError, match="no such file any more") as caught:
        source.read(3)
    assert not isinstance(caught.value, ImageError)


def test_many_shards_that_lack_something_are_not_as_many_lines(
    tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shards, "_NAMED", 2)
    lacking = {"__key__": "lacking", "png": b"x"}
    paths = [make.shard(tmp_path / f"{n}.tar", [make.pair(n), lacking]) for n in range(5)]
    source = ShardSource("::".join(map(str, paths)))
    assert source.facts()["left_out_by_shard"] == {str(path): 1 for path in paths}
    assert [f"{path}: left out 1 of 2" in caplog.text for path in paths] == [True, True, False, False, False]
    assert "left out 5 samples of 5 shards, which summary.json names" in caplog.text
    caplog.clear()
    for path in paths:
        path.write_bytes(path.read_bytes()[:1500])
    source = ShardSource("::".join(map(str, paths)), max_bad_fraction=1.0)
    assert len(source.facts()["damaged_shards"]) == 5
    assert caplog.text.count(": damaged, ") == 2
    assert "5 shards are damaged, which summary.json names" in caplog.text
