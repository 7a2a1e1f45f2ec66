from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from clip_core.errors import DataError, ImageError
from clip_train.data import indexing
from clip_train.data.captions import Keys
from clip_train.data.filters import Filter
from clip_train.data.indexing import Indexer
from clip_train.data.rows import Selection
from clip_train.data.shards import ShardSource
from clip_train.data.table import index_places, load_table


def with_facts(make: Any, number: int, **fields: Any) -> dict[str, Any]:
    return {**make.pair(number), "json": json.dumps(fields).encode()}


@pytest.fixture
def shard(tmp_path: Path, make: Any) -> Path:
    return make.shard(tmp_path / "x.tar", [make.pair(n) for n in range(20)])


def scanned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    real = indexing.scan_tar

    def scan(path: str) -> Any:
        seen.append(str(path))
        return real(path)

    monkeypatch.setattr(indexing, "scan_tar", scan)
    return seen


def test_a_shard_is_scanned_once_and_again_when_it_has_changed(
    shard: Path, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    seen = scanned(monkeypatch)
    first = ShardSource(str(shard))
    again = ShardSource(str(shard))
    assert seen == [str(shard)]
    assert (again.fingerprint, again.label(7), again.read(7)) == (first.fingerprint, first.label(7), first.read(7))
    make.shard(shard, [make.pair(n) for n in range(1, 20)])
    other = ShardSource(str(shard))
    assert len(seen) == 2
    assert len(other) == 19
    assert other.fingerprint != first.fingerprint


def test_an_index_that_rots_is_built_again(shard: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = ShardSource(str(shard))
    for place in (shard.parent / ".clip-train").iterdir():
        place.write_bytes(place.read_bytes()[:-3] + b"rot")
    again = ShardSource(str(shard))
    assert again.read(11) == first.read(11)
    assert "cannot be used (its bytes have changed)" in caplog.text


def test_a_place_that_cannot_be_written_has_its_index_elsewhere(
    shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shard.parent / ".clip-train").write_text("no folder")
    seen = scanned(monkeypatch)
    folder = tmp_path / "cache"
    for _ in range(2):
        assert len(ShardSource(str(shard), index_folder=folder)) == 20
    assert len(seen) == 1
    assert len(list((folder / "index").iterdir())) == 2


def test_the_fingerprint_is_of_the_data_and_not_of_where_it_lies(shard: Path, tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    moved = tmp_path / "moved" / "y.tar"
    moved.write_bytes(shard.read_bytes())
    assert ShardSource(str(moved)).fingerprint == ShardSource(str(shard)).fingerprint
    chosen = Selection(Keys.of("png", "txt", None, None))
    assert ShardSource(str(moved), chosen).fingerprint != ShardSource(str(shard)).fingerprint


def test_several_processes_and_ranks_find_the_same(tmp_path: Path, make: Any) -> None:
    for number in range(20):
        make.shard(tmp_path / f"{number:02d}.tar", [make.pair(n) for n in range(number, number + 3)])
    pattern = f"{tmp_path}/{{00..19}}.tar"
    last = ShardSource(pattern, rank=1, ranks=2)
    first = ShardSource(pattern)
    assert len(first) == 60
    assert (first.fingerprint, first.sizes) == (last.fingerprint, [3] * 20)
    assert [first.label(n) for n in range(60)] == [last.label(n) for n in range(60)]


def test_damage_to_a_shard_that_was_whole_keeps_the_numbers_and_counts_what_is_lost(shard: Path) -> None:
    whole = ShardSource(str(shard))
    texts = [whole.read(n)[1] for n in range(20)]
    data = bytearray(shard.read_bytes())
    data[20_000:30_000] = b"\xa5" * 10_000
    shard.write_bytes(data)
    os.utime(shard, (1, 1))
    for _ in range(2):  # scanned, and from its index
        damaged = ShardSource(str(shard), max_bad_fraction=0.5)
        assert (len(damaged), damaged.fingerprint) == (20, whole.fingerprint)
        lost = damaged.damaged[str(shard)]["lost"]
        readable = {}
        for number in range(20):
            try:
                readable[number] = damaged.read(number)[1]
            except ImageError as error:
                assert "s00000" in str(error)  # noqa: PT017
        assert lost == 20 - len(readable) > 0
        assert readable == {number: texts[number] for number in readable}
    with pytest.raises(DataError, match=rf"{lost} of 2\d samples are lost in 1 damaged shard.*--max-bad-fraction 0.1"):
        ShardSource(str(shard))


@pytest.mark.parametrize("name", ["sizes.json", "x_stats.json"])
def test_a_count_beside_a_damaged_shard_says_how_many_are_lost(
    shard: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    key = "x.tar" if name == "sizes.json" else "successes"
    (shard.parent / name).write_text(json.dumps({key: 20}))
    with caplog.at_level(logging.WARNING, "clip_train"):
        source = ShardSource(str(shard), max_bad_fraction=0.9)
    assert source.damaged[str(shard)]["lost"] == 20 - len(source)
    assert 5 < len(source) < 15
    assert f"x.tar: damaged, {20 - len(source)} samples are lost: cut short at byte" in caplog.text


def test_without_a_count_the_loss_is_said_to_be_unknown(shard: Path, caplog: pytest.LogCaptureFixture) -> None:
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    source = ShardSource(str(shard))
    assert source.damaged[str(shard)]["lost"] is None
    assert "an unknown number of samples are lost" in caplog.text
    assert source.read(len(source) - 1)[0]


def test_a_filter_decides_the_count_and_says_why(tmp_path: Path, make: Any, caplog: pytest.LogCaptureFixture) -> None:
    samples = [with_facts(make, n, similarity=n / 10, language="en" if n % 2 else "de") for n in range(10)]
    samples.append(make.pair(10))
    samples.append({**make.pair(11), "json": b"{rotten"})
    path = make.shard(tmp_path / "x.tar", samples)
    chosen = Selection(filter=Filter("similarity > 0.3 and language == 'en'"))
    with caplog.at_level(logging.INFO, "clip_train"):
        source = ShardSource(str(path), chosen)
    assert [source.label(n).rpartition(":")[2] for n in range(len(source))] == ["s0000005", "s0000007", "s0000009"]
    counts = {"similarity > 0.3": 4, "language == 'en'": 3, "no json member to read": 2}
    assert source.filtered == {str(path): counts}
    assert source.facts()["filtered_by_shard"] == {str(path): counts}
    assert "the filter keeps 3 of 12 samples" in caplog.text
    assert "filtered 4: not similarity > 0.3" in caplog.text
    assert source.fingerprint != ShardSource(str(path)).fingerprint


def test_a_filter_is_evaluated_once(tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make.shard(tmp_path / "x.tar", [with_facts(make, n, a=n) for n in range(6)])
    first = ShardSource(str(path), Selection(filter=Filter("a > 2")))
    monkeypatch.setattr(Filter, "reason", lambda *_: pytest.fail("evaluated again"))
    again = ShardSource(str(path), Selection(filter=Filter("a  >  2")))
    assert (len(again), again.filtered) == (3, first.filtered)


def test_a_filter_that_leaves_nothing_is_an_error_that_says_why(tmp_path: Path, make: Any) -> None:
    path = make.shard(tmp_path / "x.tar", [with_facts(make, n, a=n) for n in range(6)])
    with pytest.raises(DataError, match=r"No sample .* left to train on\. The filter takes 6: similarity is missing"):
        ShardSource(str(path), Selection(filter=Filter("similarity > 0.3")))


def test_keys_choose_the_members(tmp_path: Path, make: Any) -> None:
    samples = [{"__key__": f"s{n}", "thumb.jpg": b"T", "PNG": make.png(n), "alt.txt": b"alt", "json": b'{"t": "j"}'}
               for n in range(3)]  # fmt: skip
    path = make.shard(tmp_path / "x.tar", samples)
    assert ShardSource(str(path), Selection(Keys.of("webp;png", "txt;alt.txt", None, None))).read(1) == (
        make.png(1),
        b"alt",
    )
    assert ShardSource(str(path), Selection(Keys.of("thumb.jpg", "txt", "gone;t", None))).read(2) == (b"T", b"j")
    with pytest.raises(DataError, match=r"an image \(\.jpg\) and a caption \(\.txt\); it holds 3 samples with"):
        ShardSource(str(path), Selection(Keys.of("jpg", "txt", None, None)))


def test_a_name_that_comes_twice_is_two_samples(tmp_path: Path, make: Any) -> None:
    import io
    import tarfile

    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for data in (b"one", b"two"):
            for name in ("a.jpg", "a.txt"):
                entry = tarfile.TarInfo(name)
                entry.size = 3
                tar.addfile(entry, io.BytesIO(data))
    source = ShardSource(str(path))
    assert [source.read(n) for n in range(2)] == [(b"one", b"one"), (b"two", b"two")]


def test_tables_say_what_they_are(shard: Path) -> None:
    Indexer(Selection(), None, None).one(str(shard))
    (place,) = index_places(str(shard), None)
    table = load_table(place)
    assert table is not None
    assert (len(table), table.key(3), set(table.members(3))) == (20, "s0000003", {"png", "txt"})


@pytest.mark.parametrize("count", [3, 16])
def test_how_far_it_is_is_told_and_said(
    tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    paths = [make.shard(tmp_path / f"{n}.tar", [make.pair(n)]) for n in range(count)]
    monkeypatch.setattr(indexing, "_SAID", 0.0)
    told: list[tuple[int, int]] = []
    with caplog.at_level(logging.INFO, "clip_train"):
        ShardSource("::".join(map(str, paths)), progress=lambda done, total: told.append((done, total)))
    assert told == [(done, count) for done in range(1, count + 1)]
    assert f"indexed 2 of {count} shards so far" in caplog.text
