"""Data sets at a URL: fetched whole, continued, kept; and what is said where that cannot be."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from clip_core.errors import DataError, StorageError
from clip_eval.places import describe_dataset, fetch_dataset
from clip_eval.places.ledger import Ledger
from clip_eval.wds import open_dataset
from clip_hub import DownloadError


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clip_hub.retrying.sleep", lambda _: None)


def is_whole(folder: Path, files: dict[str, bytes]) -> bool:
    return all((folder / name).read_bytes() == data for name, data in files.items())


class Site:
    """A web server that says how large its files are, and fails on demand."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.statuses: dict[str, list[int]] = {}  # by name: answered in their order, then as it should be
        self.cuts: dict[str, list[int]] = {}  # by name: bodies end after so many bytes
        self.later: dict[str, bytes] = {}  # by name: the bytes once a body was cut
        self.slow = 0.0
        self.options: set[str] = set()  # "no head", "no range", "no etag", "md5"
        self.headers: dict[str, str] = {}
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                site.answer(self)

            def do_GET(self) -> None:
                site.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/sets/pets"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler: Any) -> None:
        name = handler.path.removeprefix("/sets/pets/")
        asked = handler.headers.get("Range", "")
        self.requests.append((handler.command, name, asked))
        data = self.files.get(name)
        status = self.statuses.get(name, []).pop(0) if self.statuses.get(name) else 0 if data is not None else 404
        if handler.command == "HEAD" and "no head" in self.options:
            status = 405
        body = data or b""
        etag = f'"{hashlib.sha256(body).hexdigest()[:12]}"'
        headers = {} if "no etag" in self.options else {"ETag": etag}
        if "md5" in self.options:
            headers["x-goog-hash"] = "crc32c=AAAAAA==,md5=" + "A" * 22 + "=="
        start = 0
        fits = handler.headers.get("If-Range", etag) == etag
        if not status and asked and fits and "no range" not in self.options:
            first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", asked).groups()
            start = int(first)
            total, body = len(body), body[start : int(last) + 1 if last else None]
            headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{total}"
            status = 206
        handler.send_response(status or 200)
        if status not in (0, 200, 206):
            body, headers = b"", {}
        for key, value in {"Content-Length": str(len(body)), **headers, **self.headers}.items():
            handler.send_header(key, value)
        handler.end_headers()
        if handler.command == "HEAD":
            return
        cuts = self.cuts.get(name)
        if cuts and status in (0, 206):
            body = body[: cuts.pop(0)]
            self.files |= {key: self.later.pop(key) for key in (name,) if key in self.later}
            handler.close_connection = True
        try:
            step = max(1, len(body) // 20)
            for place in range(0, len(body), step if self.slow else max(len(body), 1)):
                handler.wfile.write(body[place : place + (step if self.slow else len(body))])
                time.sleep(self.slow)
        except ConnectionError:
            pass


@pytest.fixture
def site(wds_files) -> Iterator[Site]:
    found = Site()
    found.files = wds_files()
    yield found
    found.close()


def test_memory(wds_files, tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    files = wds_files()
    for name, data in files.items():
        system.pipe(f"/sets/pets/{name}", data)
    address = "memory://sets/pets"
    before = describe_dataset(address, cache_dir=tmp_path)
    assert (before.place, before.folder, before.shards, before.bytes) == ("url", None, 3, sum(map(len, files.values())))
    folder = fetch_dataset(address, cache_dir=tmp_path, progress=True)
    assert is_whole(folder, files)
    assert open_dataset(folder).name == "pets"
    after = describe_dataset(address, cache_dir=tmp_path)
    assert (after.folder, after.bytes_cached) == (folder, after.bytes)
    # A newer version, with a shard less.
    newer = wds_files(2)
    system.rm("/sets/pets/test/2.tar")
    system.pipe("/sets/pets/classnames.txt", b"cat\ndog\nowl\n")
    system.pipe("/sets/pets/test/nshards.txt", newer["test/nshards.txt"])
    assert open_dataset(fetch_dataset(address, cache_dir=tmp_path)).classnames == ("cat", "dog", "owl")
    assert sorted(path.name for path in (folder / "test").iterdir()) == ["0.tar", "1.tar", "nshards.txt"]
    system.rm("/sets", recursive=True)
    with pytest.raises(DataError, match=r"test/nshards\.txt: there is no such file"):
        fetch_dataset(address, cache_dir=tmp_path)


def test_a_scheme_that_nothing_reads(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="Cannot fetch nonsense://a/b.*nothing that is installed reads it"):
        fetch_dataset("nonsense://a/b", cache_dir=tmp_path)


def test_a_web_server(site: Site, tmp_path: Path) -> None:
    folder = fetch_dataset(site.url, cache_dir=tmp_path)
    assert is_whole(folder, site.files)
    assert open_dataset(folder).name == "pets"
    site.requests.clear()
    assert fetch_dataset(site.url, cache_dir=tmp_path) == folder
    assert {method for method, *_ in site.requests} == {"HEAD"}
    assert not list(tmp_path.rglob("*.incomplete"))


@pytest.mark.parametrize("options", [{"no head"}, {"no range"}, {"no etag"}, {"no head", "no etag", "no range"}])
def test_simple_servers(site: Site, tmp_path: Path, options: set[str]) -> None:
    site.options = options
    site.cuts = {"test/1.tar": [1000, 700]}
    assert is_whole(fetch_dataset(site.url, cache_dir=tmp_path), site.files)


def test_a_cut_body_is_continued(site: Site, tmp_path: Path) -> None:
    site.cuts = {"test/1.tar": [1000, 700]}
    assert is_whole(fetch_dataset(site.url, cache_dir=tmp_path), site.files)
    ranges = [asked for method, name, asked in site.requests if method == "GET" and name == "test/1.tar"]
    assert ranges == ["", "bytes=1000-", "bytes=1700-"]


def test_what_may_go_better_is_tried_again(site: Site, tmp_path: Path) -> None:
    site.statuses = {"test/0.tar": [503, 429, 500], "classnames.txt": [502, 504], "about.json": [500]}
    assert is_whole(fetch_dataset(site.url, cache_dir=tmp_path), site.files)
    site.statuses = {"test/1.tar": [503] * 5}
    with pytest.raises(
        DownloadError, match=r"test/1\.tar: it is not in the cache, and the server answered 503 \(.*\), 5 times"
    ):
        fetch_dataset(site.url, cache_dir=tmp_path / "other")
    site.statuses = {"test/1.tar": [403] * 9}
    with pytest.raises(DownloadError, match=r"test/1\.tar: the server answered 403"):
        fetch_dataset(site.url, cache_dir=tmp_path / "other")


def test_a_fetch_that_fails_leaves_nothing_that_reads_as_whole(site: Site, tmp_path: Path) -> None:
    site.cuts = {"test/2.tar": [100] * 9}
    with pytest.raises(DownloadError, match=r"test/2\.tar: \d+ of \d+ bytes arrived, 5 times\. What arrived is kept"):
        fetch_dataset(site.url, cache_dir=tmp_path)
    (folder,) = tmp_path.glob("datasets/*/pets")
    assert not (folder / "test" / "2.tar").exists()
    with pytest.raises(DataError, match=r"says 3 shard\(s\), the folder holds 2"):
        open_dataset(folder)
    site.cuts.clear()
    site.requests.clear()
    assert is_whole(fetch_dataset(site.url, cache_dir=tmp_path), site.files)
    gets = [(name, asked) for method, name, asked in site.requests if method == "GET"]
    assert gets == [("test/2.tar", "bytes=500-")]


def test_a_file_that_changes_meanwhile_is_never_mixed(site: Site, tmp_path: Path) -> None:
    site.cuts = {"test/1.tar": [1000] * 9}
    with pytest.raises(DownloadError, match="What arrived is kept"):
        fetch_dataset(site.url, cache_dir=tmp_path)
    site.cuts.clear()
    site.files["test/1.tar"] = site.files["test/0.tar"]
    assert is_whole(fetch_dataset(site.url, cache_dir=tmp_path), site.files)
    assert not list(tmp_path.rglob("*.incomplete"))


@pytest.mark.parametrize("options", [set(), {"no range"}, {"no etag"}])
def test_a_file_that_changes_while_it_is_fetched(site: Site, tmp_path: Path, options: set[str]) -> None:
    site.options = options
    site.cuts = {"test/1.tar": [1000]}
    site.later = {"test/1.tar": bytes(reversed(site.files["test/1.tar"]))}
    if "no etag" in options:  # nothing tells, so it begins again
        assert is_whole(fetch_dataset(site.url, cache_dir=tmp_path), site.files)
        return
    with pytest.raises(DownloadError, match=r"test/1\.tar: it has changed while it was fetched"):
        fetch_dataset(site.url, cache_dir=tmp_path)
    assert is_whole(fetch_dataset(site.url, cache_dir=tmp_path), site.files)


class Moody(MemoryFileSystem):
    """A file system of fsspec whose next answers are these errors."""

    protocol = "moody"
    errors: ClassVar[list[Exception]] = []
    md5: ClassVar[str] = ""
    store: ClassVar[dict[str, Any]] = {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("moody://", "memory://"))

    def info(self, path: str, **rest: Any) -> dict[str, Any]:
        if self.errors:
            raise self.errors.pop(0)
        return {**super().info(path, **rest), **({"md5Hash": self.md5} if self.md5 else {})}


def test_whatever_a_file_system_raises(wds_files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("moody", Moody, clobber=True)
    files = wds_files(1)
    system = fsspec.filesystem("moody")
    for name, data in files.items():
        system.pipe(f"/pets/{name}", data)
    address = "moody://pets"

    class ClientError(Exception):
        """As boto's, which is no OSError."""

    monkeypatch.setattr(Moody, "errors", [ClientError("slow down"), TimeoutError(), ConnectionError("reset")])
    assert is_whole(fetch_dataset(address, cache_dir=tmp_path), files)
    for error, message in (
        (PermissionError("denied"), r"nshards\.txt: no access \(denied\); check the credentials"),
        (NotImplementedError("no such thing"), r"nshards\.txt: no such thing"),
    ):
        monkeypatch.setattr(Moody, "errors", [error])
        with pytest.raises(DownloadError, match=message):
            fetch_dataset(address, cache_dir=tmp_path / "new")
    monkeypatch.setattr(Moody, "errors", [ClientError("slow down\nplease")] * 5)
    with pytest.raises(DownloadError, match=r"the store has trouble \(ClientError: slow down\), 5 times"):
        fetch_dataset(address, cache_dir=tmp_path / "new")
    monkeypatch.setattr(Moody, "md5", "A" * 22 + "==")
    with pytest.raises(DownloadError, match=r"nshards\.txt: it arrived with the md5 \w+ instead of the store's 0{32}"):
        fetch_dataset(address, cache_dir=tmp_path / "new")


def test_a_manifest_and_a_checksum_of_the_store_are_held_to(site: Site, tmp_path: Path) -> None:
    facts = [
        {"samples": 2, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in sorted(site.files.items())
        if name.endswith(".tar")
    ]
    manifest = {"schema": 1, "samples": 6, "classes": 3, "shards": facts}
    site.files["test/manifest.json"] = json.dumps(manifest).encode()
    folder = fetch_dataset(site.url, cache_dir=tmp_path)
    assert describe_dataset(site.url, cache_dir=tmp_path).samples == 6
    assert open_dataset(folder).labels == (0, 1, 2, 0, 1, 2)
    data = bytearray(site.files["test/1.tar"])
    data[600] ^= 1
    site.files["test/1.tar"] = bytes(data)
    with pytest.raises(
        DownloadError, match=r"test/1\.tar: it arrived with the sha256 \w+ instead of the manifest's \w+ twice"
    ):
        fetch_dataset(site.url, cache_dir=tmp_path)
    del site.files["test/manifest.json"]
    site.options = {"md5"}
    with pytest.raises(DownloadError, match=r"arrived with the md5 \w+ instead of the store's 0{32} twice"):
        fetch_dataset(site.url, cache_dir=tmp_path / "other")


def test_a_missing_shard_or_count_is_an_error(site: Site, tmp_path: Path) -> None:
    shard = site.files.pop("test/1.tar")
    with pytest.raises(DataError, match=r"test/1\.tar: there is no such file, but nshards\.txt says 3 shard\(s\)"):
        fetch_dataset(site.url, cache_dir=tmp_path)
    site.files["test/1.tar"] = shard
    del site.files["test/nshards.txt"]
    with pytest.raises(DataError, match=r"test/nshards\.txt: there is no such file"):
        fetch_dataset(site.url, cache_dir=tmp_path)


def test_out_of_reach_and_offline(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    folder = fetch_dataset(site.url, cache_dir=tmp_path)
    site.statuses = {name: [503] * 99 for name in (*site.files, "about.json", "dataset_type.txt")}
    assert fetch_dataset(site.url, cache_dir=tmp_path) == folder
    assert "using the cache" in caplog.text
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    site.requests.clear()
    assert fetch_dataset(site.url, cache_dir=tmp_path) == folder
    assert describe_dataset(site.url, cache_dir=tmp_path).folder == folder
    assert not site.requests
    with pytest.raises(
        DownloadError, match=r"nshards\.txt: it is not in the cache and HF_HUB_OFFLINE forbids the network"
    ):
        fetch_dataset(site.url, cache_dir=tmp_path / "empty")
    with pytest.raises(DownloadError, match=r"train/nshards\.txt: it is not in the cache"):
        fetch_dataset(site.url, split="train", cache_dir=tmp_path)
    (folder / "test" / "1.tar").unlink()
    with pytest.raises(DownloadError, match=r"test/1\.tar: it is not in the cache"):
        fetch_dataset(site.url, cache_dir=tmp_path)


def test_half_of_a_newer_version_is_not_used_offline(site: Site, tmp_path: Path, monkeypatch) -> None:
    fetch_dataset(site.url, cache_dir=tmp_path)
    site.files["classnames.txt"] = b"owl\ncat\ndog\n"
    site.files["test/0.tar"] += bytes(512)
    site.cuts = {"test/0.tar": [100] * 9}
    with pytest.raises(DownloadError, match="What arrived is kept"):
        fetch_dataset(site.url, cache_dir=tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="files of two versions"):
        fetch_dataset(site.url, cache_dir=tmp_path)


def test_a_damaged_cache_is_noticed(site: Site, tmp_path: Path) -> None:
    folder = fetch_dataset(site.url, cache_dir=tmp_path)
    path = folder / "test" / "1.tar"
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)
    assert is_whole(fetch_dataset(site.url, cache_dir=tmp_path), site.files)
    os.utime(path, (1, 1))
    site.requests.clear()
    fetch_dataset(site.url, cache_dir=tmp_path)
    assert {method for method, *_ in site.requests} == {"HEAD"}
    (state,) = tmp_path.glob("datasets/*/state.json")
    state.write_text('{"files": 3}')
    assert is_whole(fetch_dataset(site.url, cache_dir=tmp_path), site.files)
    ledger = Ledger(state)
    ledger.load()
    assert ledger.is_known_missing("about.json")
    assert not ledger.is_known_missing("classnames.txt")


def test_not_enough_room_is_said_before(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 5000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match=r"needs 0\.00 GB more, and .* Free some space"):
        fetch_dataset(site.url, cache_dir=tmp_path)
    assert not any(name.endswith(".tar") for method, name, _ in site.requests if method == "GET")


# Several processes


SCRIPT = Path(__file__).with_name("fetching_client.py")


def test_a_killed_fetch_is_continued(start_apart, site: Site, tmp_path: Path) -> None:
    site.files["test/1.tar"] += bytes(4_000_000)
    site.slow = 0.01
    client, _ = start_apart(SCRIPT, url=site.url, cache=tmp_path, room=None)
    until = time.monotonic() + 30
    while not list(tmp_path.glob("datasets/*/pets/test/.1.tar.*.incomplete")):
        assert time.monotonic() < until, "it began with nothing"
        time.sleep(0.005)
    until = time.monotonic() + 30
    while not any(path.stat().st_size for path in tmp_path.glob("datasets/*/pets/test/.1.tar.*.incomplete")):
        assert time.monotonic() < until
        time.sleep(0.005)
    client.kill()
    client.join()
    (folder,) = tmp_path.glob("datasets/*/pets")
    with pytest.raises(DataError, match="the folder holds 1"):
        open_dataset(folder)
    site.slow = 0
    site.requests.clear()
    assert is_whole(fetch_dataset(site.url, cache_dir=tmp_path), site.files)
    (asked,) = [asked for method, name, asked in site.requests if (method, name) == ("GET", "test/1.tar")]
    assert int(asked.removeprefix("bytes=").rstrip("-")) > 0
    assert not [name for method, name, _ in site.requests if (method, name) == ("GET", "test/0.tar")]


def test_two_processes_fetch_once(start_apart, site: Site, tmp_path: Path) -> None:
    site.slow = 0.002
    clients = [start_apart(SCRIPT, url=site.url, cache=tmp_path, room=None) for _ in range(3)]
    (folder,) = {answer.recv() for _, answer in clients}
    assert is_whole(Path(folder), site.files)
    gets = [name for method, name, _ in site.requests if method == "GET"]
    assert sorted(gets) == sorted(site.files)


def test_a_full_disk(start_apart, site: Site, tmp_path: Path) -> None:
    site.files["test/1.tar"] += bytes(4_000_000)
    _, answer = start_apart(SCRIPT, url=site.url, cache=tmp_path, room=2_000_000)
    told = answer.recv()
    assert "error: Cannot keep" in told
    assert "the disk is full; free some space, or pass another cache_dir. What arrived is kept" in told
    assert not list(tmp_path.glob("datasets/*/pets/test/1.tar"))
    assert is_whole(fetch_dataset(site.url, cache_dir=tmp_path), site.files)
