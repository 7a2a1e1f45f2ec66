"""Which images are found, under which names and in which order."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from clip_core.embedding.sources import find_images, listing_sha256
from clip_core.errors import ConfigError, DataError


def shard(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_a_folder_is_searched_to_any_depth_and_sorted(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/z.png", "a/b/c.webp", "a0.tiff", ".hidden.png", ".git/x.png", "notes.txt", "a/._z.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "link.png").symlink_to("nowhere.png")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
    images = find_images([tmp_path])
    assert [image.name for image in images] == ["a/b/c.webp", "a/z.png", "a0.tiff", "b.JPG", "link.png"]
    assert images[1].read() == b"a/z.png"
    with pytest.raises(FileNotFoundError):
        images[-1].read()


def test_tar_files_are_read_in_place_and_named_after_their_shard(tmp_path: Path) -> None:
    one = shard(tmp_path / "1.tar", {"000.png": b"three", "000.txt": b"text", "x/.hid.png": b"four", "é.jpg": b"5"})
    zero = shard(tmp_path / "0.tar", {"b.png": b"two", "a.png": b"one"})
    images = find_images([one, zero])
    assert [image.name for image in images] == [
        "0.tar:a.png", "0.tar:b.png", "1.tar:000.png", "1.tar:x/.hid.png", "1.tar:é.jpg",
    ]  # fmt: skip
    assert [image.read() for image in images] == [b"one", b"two", b"three", b"four", b"5"]


def test_several_sources_keep_their_names_apart(tmp_path: Path) -> None:
    for folder in ("p", "q"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(b"")
    images = find_images([tmp_path / "q", tmp_path / "p", shard(tmp_path / "a.tar", {"a.png": b"1"})])
    assert [image.name for image in images] == ["a.tar:a.png", "p/a.png", "q/a.png"]
    (tmp_path / "q" / "p").mkdir()
    with pytest.raises(ConfigError, match="Two sources are called p"):
        find_images([tmp_path / "p", tmp_path / "q" / "p"])


def test_the_hash_of_a_listing_is_that_of_names_and_sizes(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"12")
    before = listing_sha256(find_images([tmp_path]))
    assert listing_sha256(find_images([tmp_path])) == before
    (tmp_path / "a.png").write_bytes(b"123")
    longer = listing_sha256(find_images([tmp_path]))
    (tmp_path / "b.png").write_bytes(b"")
    assert len({before, longer, listing_sha256(find_images([tmp_path]))}) == 3


def test_what_cannot_be_searched_is_an_error(tmp_path: Path) -> None:
    whole = shard(tmp_path / "whole.tar", {"a.png": bytes(3000), "b.png": bytes(3000)})
    (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[:5000])
    (tmp_path / "header.tar").write_bytes(whole.read_bytes()[:4000])
    for source, error, message in [
        (tmp_path / "none", ConfigError, "none does not exist; give a folder"),
        (shard(tmp_path / "packed.tar.gz", {"a.png": b"1"}, "w:gz"), ConfigError, "neither a folder nor a file"),
        (shard(tmp_path / "packed.tar", {"a.png": b"1"}, "w:gz"), DataError, "packed.tar: .* decompressed first"),
        (tmp_path / "cut.tar", DataError, "Cannot read .*cut.tar: unexpected end of data"),
        (tmp_path / "header.tar", DataError, "header.tar is cut short"),
        (shard(tmp_path / "text.tar", {"a.txt": b"1"}), DataError, "There is no image in"),
        (tmp_path, DataError, r"tar files, which have to be named themselves: .*\*.tar"),
    ]:
        with pytest.raises(error, match=message):
            find_images([source])
    for path in (tmp_path, str(tmp_path)):
        with pytest.raises(ConfigError, match=r"The sources are '/.*'; allowed: a list of paths"):
            find_images(path)  # type: ignore[arg-type]


def test_a_tar_without_its_end_is_warned_of(tmp_path: Path, caplog) -> None:
    whole = shard(tmp_path / "whole.tar", {"a.png": bytes(512), "b.png": bytes(512)})
    assert len(find_images([whole])) == 2
    assert not caplog.records
    (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[:512] + b"x" * 512)
    assert len(find_images([tmp_path / "cut.tar"])) == 1
    assert "cut.tar has no mark at its end" in caplog.text
