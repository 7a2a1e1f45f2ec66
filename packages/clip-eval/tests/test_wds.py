"""Shards and data set folders: what a good one holds, and what is said about a bad one."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from webdataset.tariterators import group_by_keys, tar_file_expander

from clip_core.errors import DataError
from clip_eval.wds import index_shard, open_dataset, read_image_bytes, read_member


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], **settings: Any) -> Path:
    with tarfile.open(path, "w", **settings) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_index_equals_what_webdataset_reads(tmp_path: Path) -> None:
    members = [
        ("a/b.c/s1.png", b"one"),
        ("a/b.c/s1.txt", b"uno"),
        ("__meta__", b"skipped"),
        ("s2.seg.PNG", b"two"),
        ("s2.json", b"{}"),
        ("a/" + "long" * 60 + ".txt", b"long"),
        ("./s3.cls", b"3"),
        (".hidden", b"no key"),
        ("__meta.txt__", b"skipped"),
        ("__meta__/a.txt", b"skipped"),
        ("__sample.txt", b"kept"),
        ("__meta__.txt", b"kept"),
        ("folder/__meta__/a.txt", b"kept"),
    ]
    path = write_tar(tmp_path / "00.tar", members)
    found = {s.key: {extension: read_member(s, extension) for extension in s.members} for s in index_shard(path)}
    peer = {}
    with path.open("rb") as file:
        for sample in group_by_keys(tar_file_expander([{"url": str(path), "stream": file}])):
            peer[sample["__key__"]] = {k: v for k, v in sample.items() if not k.startswith("__")}
    assert found == peer
    assert list(found)[:2] == ["a/b.c/s1", "s2"]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_tar_format(tmp_path: Path, form: int) -> None:
    path = write_tar(tmp_path / "f.tar", [("x" * 90 + ".txt", b"t" * 700), ("y.txt", b"")], format=form)
    first, second = index_shard(path)
    assert read_member(first, "txt") == b"t" * 700
    assert read_member(second, "txt") == b""


def test_members_of_a_sample_need_not_be_neighbours(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "f.tar", [("a.png", b"1"), ("b.png", b"2"), ("a.txt", b"3"), ("b.txt", b"4")])
    assert [(s.key, list(s.members)) for s in index_shard(path)] == [("a", ["png", "txt"]), ("b", ["png", "txt"])]


def test_a_member_twice_is_an_error(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "f.tar", [("a.png", b"1"), ("a.PNG", b"2")])
    with pytest.raises(DataError, match=r"f\.tar: the sample 'a' holds two members \.png"):
        index_shard(path)


def test_a_missing_shard_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.tar: no such file"):
        index_shard(tmp_path / "gone.tar")
    with pytest.raises(DataError, match="cannot be read"):
        index_shard(tmp_path)


@pytest.mark.parametrize("data", [b"", b"no tar" * 999, b"\x1f\x8b\x08" + bytes(999)])
def test_no_tar_at_all(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "f.tar").write_bytes(data)
    with pytest.raises(DataError, match=r"f\.tar: not a readable tar"):
        index_shard(tmp_path / "f.tar")


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole.tar", [(f"s{n}.txt", b"x" * 600) for n in range(4)]).read_bytes()
    end = 4 * (512 + 1024)  # then come the blocks of zeros that end a tar
    path = tmp_path / "cut.tar"
    for length in [*range(1, end + 512, 101), *range(512, end + 1, 512)]:
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut\.tar"):
            index_shard(path)
    path.write_bytes(whole[: end + 512])
    assert len(index_shard(path)) == 4


def test_a_damaged_header_in_the_middle(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "f.tar", [(f"s{n}.txt", b"x" * 600) for n in range(4)])
    data = bytearray(path.read_bytes())
    data[1536:1556] = b"\xff" * 20
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged tar: the header at byte 1536"):
        index_shard(path)


def test_a_shard_that_shrank_after_indexing(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "f.tar", [("a.txt", b"x" * 600)])
    (sample,) = index_shard(path)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DataError, match=r"short read: a\.txt has 188 bytes instead of 600"):
        read_member(sample, "txt")
    with pytest.raises(DataError, match=r"has no \.png; it holds \.txt"):
        read_member(sample, "png")
    with pytest.raises(DataError, match="has no image"):
        read_image_bytes(sample)


def test_classification_folder(make_classification) -> None:
    folder = make_classification(labels=["2", " 1\n"], classnames="cat\n\n  owl \n")
    data = open_dataset(folder)
    assert (data.name, data.kind, data.split) == ("animals", "classification", "test")
    assert data.classnames == ("cat", "", "owl")  # a blank line is a class: dropping it would shift the labels
    assert data.templates == ("a photo of a {c}.", "a drawing of a {c}.")
    assert data.labels == (2, 1)
    assert [sample.key for sample in data.samples] == ["s0000000", "s0000001"]


def test_retrieval_folder_splits_captions_at_line_feeds_only(make_retrieval) -> None:
    folder = make_retrieval(["one\u2028line\ntwo\\nwords\n", "next\x85line", "a\x0bb\x0cc\nd"])
    data = open_dataset(folder)
    assert data.kind == "retrieval"
    assert data.captions == (("one\u2028line", "two\\nwords"), ("next\x85line",), ("a\x0bb\x0cc", "d"))


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\n\n\n", "\r\n\r\n"])
def test_line_ends_at_the_end_make_no_caption(make_retrieval, end: str) -> None:
    assert open_dataset(make_retrieval([f"a cat\na dog{end}"])).captions == (("a cat", "a dog"),)


@pytest.mark.parametrize(("text", "line"), [("a dog\n \nb", 2), ("\na dog", 1), ("a\n\n\nb\n", 2), ("a\n \n", 2)])
def test_a_blank_caption_is_an_error(make_retrieval, text: str, line: int) -> None:
    with pytest.raises(DataError, match=rf"s0000001\.txt: the caption in line {line} of \d is blank"):
        open_dataset(make_retrieval(["fine", text]))


def test_the_peers_many_shards_are_read_in_their_order(make_classification, tmp_path: Path) -> None:
    folder = make_classification()
    shard = (folder / "test" / "0.tar").read_bytes()
    for number in range(1, 12):
        (folder / "test" / f"{number}.tar").write_bytes(shard)
    (folder / "test" / "nshards.txt").write_text("12\n")
    shards = list(dict.fromkeys(sample.shard for sample in open_dataset(folder).samples))
    assert [Path(shard).name for shard in shards] == [f"{number}.tar" for number in range(12)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nshards": None}, r"nshards\.txt: missing"),
        ({"nshards": "two\n"}, "must hold one whole number above 0"),
        ({"nshards": "0\n"}, "must hold one whole number above 0"),
        ({"nshards": "2\n"}, r"says 2 shard\(s\), the folder holds 1 \(missing: 1\.tar"),
        ({"labels": ["0", "3"], "images": None}, r"holds the label 3, but classnames\.txt names 3 classes"),
        ({"labels": ["-1"]}, "must hold one whole number, the label, not '-1'"),
        ({"labels": ["0.0"]}, "must hold one whole number"),
        ({"classnames": ""}, "holds no class name"),
        ({"classnames": "cat\ndog\n cat\n"}, r"1 class name\(s\) occur more than once \('cat'\)"),
        ({"templates": ""}, "holds no template"),
        ({"templates": "a photo\n"}, "line 1, 'a photo', has no placeholder {c}"),
        ({"labels": []}, "the shards hold no sample"),
    ],
)
def test_a_bad_classification_folder(make_classification, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(make_classification(**change))


def test_duplicate_class_names_can_be_allowed(make_classification) -> None:
    folder = make_classification(classnames="missile\nowl\nmissile\n")
    assert open_dataset(folder, allow_duplicate_classnames=True).classnames.count("missile") == 2


def test_a_shard_too_many(make_classification) -> None:
    folder = make_classification()
    (folder / "test" / "7.tar").write_bytes((folder / "test" / "0.tar").read_bytes())
    with pytest.raises(DataError, match=r"not expected: 7\.tar"):
        open_dataset(folder)


def test_missing_parts_are_named(make_classification, make_retrieval, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such data set folder"):
        open_dataset(tmp_path / "nowhere")
    folder = make_classification()
    with pytest.raises(DataError, match="no split 'train'. Splits here: test"):
        open_dataset(folder, "train")
    (folder / "classnames.txt").unlink()
    with pytest.raises(DataError, match=r"classnames\.txt: no such file"):
        open_dataset(folder)
    (folder / "dataset_type.txt").write_text("segmentation\n")
    with pytest.raises(DataError, match="unknown data set type 'segmentation'"):
        open_dataset(folder)
    with pytest.raises(DataError, match="'s0000001' has no caption"):
        open_dataset(make_retrieval(["fine", " \n"]))


def test_samples_without_label_or_image(tmp_path: Path, make_classification) -> None:
    folder = make_classification()
    write_tar(folder / "test" / "0.tar", [("a.png", b"x"), ("a.txt", b"0")])
    with pytest.raises(DataError, match=r"'a' has no \.cls; it holds \.png, \.txt"):
        open_dataset(folder)
    write_tar(folder / "test" / "0.tar", [("a.cls", b"0")])
    with pytest.raises(DataError, match="has no image"):
        open_dataset(folder)
