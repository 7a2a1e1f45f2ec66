from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_core.errors import DataError
from clip_train.data.scan import scan_tar, split_name

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
NAMES = st.text(st.characters(blacklist_characters="\0/", blacklist_categories=["Cs"]), min_size=1, max_size=30)


def write(path: Path, files: list[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> None:
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def theirs(path: Path) -> list[tuple[str, int, int]]:
    with tarfile.open(path) as tar:
        return [(entry.name, entry.offset_data, entry.size) for entry in tar if entry.isreg()]


@settings(deadline=None, max_examples=60)
@given(
    names=st.lists(st.lists(NAMES, min_size=1, max_size=8).map("/".join), min_size=1, max_size=6),
    form=st.sampled_from(["gnu", "pax"]),
    data=st.data(),
)
def test_members_are_those_of_tarfile(tmp_path_factory: Any, names: list[str], form: str, data: Any) -> None:
    path = tmp_path_factory.mktemp("tar") / "x.tar"
    write(path, [(name, data.draw(st.binary(max_size=1500))) for name in names], FORMATS[form])
    found = scan_tar(path)
    assert [tuple(member) for member in found.members] == theirs(path)
    assert found.damage == []


@pytest.mark.parametrize("form", FORMATS)
def test_long_names_folders_and_links(tmp_path: Path, form: str) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=FORMATS[form]) as tar:
        for name, kind in (("d", tarfile.DIRTYPE), ("l", tarfile.SYMTYPE), ("h", tarfile.LNKTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "elsewhere"
            tar.addfile(entry)
        for name in ("a" * 60 + "/" + "b" * 90 + ".jpg", "after.txt"):
            entry = tarfile.TarInfo(name)
            entry.size = 700
            tar.addfile(entry, io.BytesIO(b"x" * 700))
    assert [tuple(member) for member in scan_tar(path).members] == theirs(path)


def test_large_sizes_are_read_from_either_spelling() -> None:
    from clip_train.data.scan import _number

    for size in (0, 8, 8**11 - 1, 8**11, 2**40):
        entry = tarfile.TarInfo("x")
        entry.size = size
        assert _number(entry.tobuf(tarfile.GNU_FORMAT)[124:136]) == size


def samples(count: int) -> list[tuple[str, bytes]]:
    return [(f"s{n:03d}.{end}", bytes([n]) * size) for n in range(count) for end, size in (("jpg", 3000), ("txt", 20))]


@pytest.mark.parametrize("keep", [400, 5000, 20_001, 31_000])
def test_what_stands_before_the_cut_is_found(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "x.tar"
    write(path, samples(10), tarfile.USTAR_FORMAT)
    whole = theirs(path)
    path.write_bytes(path.read_bytes()[:keep])
    if keep < 512:
        with pytest.raises(DataError, match="not a readable tar"):
            scan_tar(path)
        return
    found = scan_tar(path)
    assert [tuple(member) for member in found.members] == [row for row in whole if row[1] + row[2] <= keep]
    assert len(found.damage) == 1
    assert f"cut short at byte {keep}" in found.damage[0]


@pytest.mark.parametrize("rot", [b"\xa5", b"\0"])
@pytest.mark.parametrize("first", [0, 9000, 9216, 33_000])
def test_what_stands_behind_a_rotten_stretch_is_found(tmp_path: Path, rot: bytes, first: int) -> None:
    path = tmp_path / "x.tar"
    write(path, samples(20), tarfile.USTAR_FORMAT)
    whole = theirs(path)
    data = bytearray(path.read_bytes())
    data[first : first + 10_000] = rot * 10_000
    path.write_bytes(data)
    found = scan_tar(path)
    # A header is the block before the data; one that is gone takes its member along, data that rots does not.
    assert [tuple(m) for m in found.members] == [
        row for row in whole if not first - 512 < row[1] - 512 < first + 10_000
    ]
    assert found.damage
    assert "goes on at byte" in found.damage[0]


def test_what_is_no_tar_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(DataError, match=r"x\.tar: not a readable tar"):
        scan_tar(tmp_path / "x.tar")
    with pytest.raises(DataError, match="no such file"):
        scan_tar(tmp_path / "y.tar")


def test_an_empty_tar_holds_nothing(tmp_path: Path) -> None:
    write(tmp_path / "x.tar", [])
    found = scan_tar(tmp_path / "x.tar")
    assert (found.members, found.damage) == ([], [])


def test_names_are_split_as_webdataset_splits_them() -> None:
    from webdataset.tariterators import base_plus_ext

    for name in ("a.jpg", "d.x/a.seg.PNG", "d/a", "ä.b.c", "./a.txt"):
        key, extension = base_plus_ext(name)
        assert split_name(name) == (None if key is None else (key, extension.lower())), name
    # Data about the shard, and what macOS leaves behind.
    assert split_name("__meta__/a.txt") is split_name("a/.b.txt") is None


def test_a_long_end_of_zeros_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    write(path, samples(40), tarfile.USTAR_FORMAT)
    data = path.read_bytes()
    path.write_bytes(data[:9216] + bytes(len(data) - 9216))
    found = scan_tar(path)
    assert [member.name for member in found.members] == ["s000.jpg", "s000.txt", "s001.jpg", "s001.txt"]
    assert "nothing but zeros from byte 9216" in found.damage[0]
