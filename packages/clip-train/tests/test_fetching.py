from __future__ import annotations

import hashlib
import http.server
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

import clip_train.data.fetching as fetching
from clip_core.errors import DataError, StorageError
from clip_train.data.fetching import ShardCache
from clip_train.data.shards import ShardSource


class Site:
    """Files of a web server that can be told to misbehave."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.wrong: list[str] = []
        """What happens to the next requests for bytes: "500", "cut", "hang", "rot"."""
        self.asked: list[tuple[str, str, str]] = []
        self.release = threading.Event()
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_HEAD(self) -> None:
                self.answer(with_body=False)

            def do_GET(self) -> None:
                self.answer(with_body=True)

            def answer(self, *, with_body: bool) -> None:
                asked = self.headers.get("Range", "")
                site.asked.append((self.command, self.path, asked))
                data = site.files.get(self.path)
                if data is None:
                    self.send_error(404)
                    return
                wrong = site.wrong.pop(0) if with_body and site.wrong else ""
                if wrong == "500":
                    self.send_error(503)
                    return
                start = int(re.findall(r"\d+", asked)[0]) if asked else 0
                self.send_response(206 if asked else 200)
                self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
                self.send_header("Content-Length", str(len(data) - start))
                if asked:
                    self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
                self.end_headers()
                if not with_body:
                    return
                body = data[start:]
                if wrong in ("cut", "hang"):
                    self.wfile.write(body[: len(body) // 2])
                    self.wfile.flush()
                    if wrong == "hang":
                        site.release.wait(20)
                elif wrong == "rot":
                    self.wfile.write(body[:700] + bytes(len(body) - 700))
                else:
                    self.wfile.write(body)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def bodies(self) -> int:
        """How often bytes were asked for."""
        return sum(method == "GET" for method, _, _ in self.asked)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr("clip_hub.retrying.sleep", lambda _: None)
    made = Site()
    made.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that leaves is no news
    yield made
    made.release.set()
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def data(shards: str) -> bytes:
    return Path(shards.replace("{00000..00001}", "00000")).read_bytes()


def cache_at(folder: Path, *, limit: int = 10**9, stall: float = 20) -> ShardCache:
    return ShardCache(folder, limit=limit, stall=stall)


def test_shards_of_a_web_server_are_read_like_files(site: Site, shards: str, tmp_path: Path) -> None:
    here = ShardSource(shards)
    for number, path in enumerate(here.groups):
        site.files[f"/data/{number:05d}.tar"] = Path(path).read_bytes()
    pattern = f"{site.url}/data/{{00000..00001}}.tar"
    there = ShardSource(pattern, cache=cache_at(tmp_path), index_folder=tmp_path)
    assert [there.read(n) for n in range(40)] == [here.read(n) for n in range(40)]
    assert there.fingerprint == here.fingerprint
    assert there.label(30) == f"{site.url}/data/00001.tar:s0000030"
    assert site.bodies() == 2
    # The index is kept: only what the server calls the version is asked for.
    again = ShardSource(pattern, cache=cache_at(tmp_path), index_folder=tmp_path)
    assert (again.read(30), site.bodies()) == (here.read(30), 2)


def test_a_shard_that_changed_there_is_indexed_anew(site: Site, tmp_path: Path, make: Any) -> None:
    def put(count: int) -> None:
        path = make.shard(tmp_path / "x.tar", [make.pair(n) for n in range(count)])
        site.files["/x.tar"] = path.read_bytes()

    put(4)
    first = ShardSource(f"{site.url}/x.tar", cache=cache_at(tmp_path), index_folder=tmp_path)
    put(6)
    assert len(ShardSource(f"{site.url}/x.tar", cache=cache_at(tmp_path), index_folder=tmp_path)) == 6
    for path in (tmp_path / "shards").glob("*.tar"):
        path.unlink()
    with pytest.raises(DataError, match="changed"):
        first.read(0)


def test_trouble_is_tried_again_and_goes_on_where_it_broke(site: Site, data: bytes, tmp_path: Path) -> None:
    site.files["/x.tar"] = data
    site.wrong = ["500", "cut", "500"]
    path, identity = cache_at(tmp_path).fetch(f"{site.url}/x.tar")
    assert path.read_bytes() == data
    assert (identity.size, identity.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_trouble_that_stays_ends_the_run_and_is_no_bad_data(site: Site, data: bytes, tmp_path: Path) -> None:
    site.files["/x.tar"] = data
    site.wrong = ["500"] * 9
    with pytest.raises(DataError, match=r"x\.tar: the server answered 503 .*5 times.* trouble of the place"):
        cache_at(tmp_path).fetch(f"{site.url}/x.tar")
    with pytest.raises(DataError, match="there is no such file"):
        cache_at(tmp_path).fetch(f"{site.url}/gone.tar")
    assert not list(tmp_path.rglob("*.tar"))


def test_a_transfer_that_hangs_is_broken_off(site: Site, data: bytes, tmp_path: Path) -> None:
    site.files["/x.tar"] = data
    site.wrong = ["hang", "hang"]
    path, _ = cache_at(tmp_path, stall=0.3).fetch(f"{site.url}/x.tar")
    assert path.read_bytes() == data
    assert site.bodies() == 3


def test_a_shard_that_was_damaged_on_its_way_is_fetched_again(
    site: Site, data: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site.files["/x.tar"] = data
    site.wrong = ["rot"]
    source = ShardSource(f"{site.url}/x.tar", cache=cache_at(tmp_path), index_folder=tmp_path)
    assert (len(source), source.damaged) == (24, {})
    assert "fetching it again" in caplog.text
    # The same later, when it is known what it should be.
    for path in (tmp_path / "shards").glob("*.tar"):
        path.unlink()
    site.wrong = ["rot"]
    assert source.read(3)[1]
    assert "arrived with other bytes than before" in caplog.text


def test_a_shard_that_is_damaged_there_keeps_what_is_whole(site: Site, data: bytes, tmp_path: Path) -> None:
    site.files["/x.tar"] = data[: len(data) // 2]
    source = ShardSource(f"{site.url}/x.tar", cache=cache_at(tmp_path), index_folder=tmp_path)
    assert 8 < len(source) < 16
    assert source.damaged[f"{site.url}/x.tar"]["lost"] is None
    assert site.bodies() == 2


def test_the_cache_keeps_to_its_size(site: Site, data: bytes, tmp_path: Path) -> None:
    names = [f"/{number}.tar" for number in range(5)]
    site.files = dict.fromkeys(names, data)
    cache = cache_at(tmp_path, limit=int(2.5 * len(data)))
    found = [cache.fetch(site.url + name) for name in names]
    assert len(list((tmp_path / "shards").glob("*.tar"))) == 2
    # What was used last stays, what was used longest ago has gone; it comes again when it is read.
    assert found[4][0].exists()
    assert not found[0][0].exists()
    assert cache.get(site.url + names[0], found[0][1]).read_bytes() == data
    with pytest.raises(StorageError, match="--data-cache-gb"):
        cache_at(tmp_path / "small", limit=100).fetch(site.url + names[0])


def test_two_threads_fetch_a_shard_once(site: Site, data: bytes, tmp_path: Path) -> None:
    site.files["/x.tar"] = data
    cache = cache_at(tmp_path)
    _, identity = cache.fetch(f"{site.url}/x.tar")
    cache.forget(f"{site.url}/x.tar", identity)
    before = site.bodies()
    threads = [threading.Thread(target=cache.get, args=(f"{site.url}/x.tar", identity)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert site.bodies() == before + 1


def test_a_reader_finds_a_shard_that_had_to_make_room(site: Site, data: bytes, tmp_path: Path) -> None:
    site.files["/x.tar"] = data
    source = ShardSource(f"{site.url}/x.tar", cache=cache_at(tmp_path), index_folder=tmp_path)
    expected = source.read(5)
    real, path = source.path, Path(source.path(0))

    def removed_meanwhile(number: int) -> str:
        found = real(number)
        source.path = real  # type: ignore[method-assign]
        path.unlink()
        return found

    source.path = removed_meanwhile  # type: ignore[method-assign]
    assert source.read(5) == expected


def test_any_file_system_of_fsspec_is_read(data: bytes, tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    system.pipe("/bucket/x.tar", data)
    try:
        source = ShardSource("memory://bucket/x.tar", cache=cache_at(tmp_path), index_folder=tmp_path)
        assert len(source) == 24
        assert source.read(3)[1]
    finally:
        system.rm("/bucket", recursive=True)
    with pytest.raises(DataError, match=r"nosuch://b/x\.tar: nothing that is installed reads it"):
        ShardSource("nosuch://b/x.tar", cache=cache_at(tmp_path), index_folder=tmp_path)


def test_a_command_that_writes_a_shard(shards: str, tmp_path: Path) -> None:
    here = ShardSource(shards)
    log = tmp_path / "log"
    there = ShardSource(
        f"pipe:echo x >> {log}; cat {shards}", cache=cache_at(tmp_path), index_folder=tmp_path / "index"
    )
    assert [there.read(n) for n in range(40)] == [here.read(n) for n in range(40)]
    assert there.fingerprint == here.fingerprint
    assert log.read_text().count("x") == 2


@pytest.mark.failure(
    "pipe exits 1",
    promise="Tried again, with longer and longer waits, and then an error with what the command said; "
    "never silently less data.",
)
def test_a_command_that_fails_is_tried_again_and_then_ends_the_run(
    shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clip_hub.retrying.sleep", lambda _: None)
    file, log = shards.replace("{00000..00001}", "00000"), tmp_path / "log"
    flaky = f"pipe:echo x >> {log}; test $(wc -l < {log}) -ge 3 && cat {file} || (head -c 5000 {file}; exit 1)"
    assert len(ShardSource(flaky, cache=cache_at(tmp_path), index_folder=tmp_path)) == 24
    assert log.read_text().count("x") == 3
    with pytest.raises(DataError, match=r"ended with exit code 1 \(no luck\), 5 times"):
        ShardSource(
            f"pipe:head -c 5000 {file}; echo no luck >&2; exit 1", cache=cache_at(tmp_path), index_folder=tmp_path
        )


def test_a_command_that_later_brings_less_is_no_bad_data(
    shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clip_hub.retrying.sleep", lambda _: None)
    copy = tmp_path / "copy.tar"
    copy.write_bytes(Path(shards.replace("{00000..00001}", "00000")).read_bytes())
    source = ShardSource(f"pipe:cat {copy}", cache=cache_at(tmp_path), index_folder=tmp_path)
    for path in (tmp_path / "shards").glob("*.tar"):
        path.unlink()
    copy.write_bytes(copy.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"\d+ of \d+ bytes arrived, 5 times"):
        source.read(0)


def test_a_folder_that_cannot_be_written_is_named(site: Site, data: bytes, tmp_path: Path) -> None:
    site.files["/x.tar"] = data
    (tmp_path / "shards").write_text("no folder")
    with pytest.raises(StorageError, match="--data-cache"):
        cache_at(tmp_path).fetch(f"{site.url}/x.tar")


def test_addresses_keep_what_follows_the_question_mark(site: Site, data: bytes, tmp_path: Path) -> None:
    site.files["/a%20b/x.tar?signed=1"] = data
    path, _ = cache_at(tmp_path).fetch(f"{site.url}/a%20b/x.tar?signed=1")
    assert path.read_bytes() == data
    assert fetching._split("s3://bucket/a/0.tar") == ("s3://bucket/a", "0.tar")
    assert os.listdir(tmp_path) == ["shards"]
