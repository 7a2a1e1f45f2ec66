"""Files by address and sha256 from a server on this machine: continued when cut, never with other bytes."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

import clip_core
import clip_hub
from clip_core.errors import ConfigError, UnknownModel
from clip_hub import DownloadError
from clip_hub.addresses import fetch_address

BODY = bytes(range(256)) * 20_000


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `body`; each request takes one of `faults`: a status, or after how many bytes the line goes dead."""

    body = BODY
    faults: list[tuple[str, int]]
    ranges: list[str]

    def do_GET(self) -> None:
        kind, number = self.faults.pop(0) if self.faults else ("", 0)
        asked = self.headers["Range"]
        self.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if kind == "status" or start >= len(self.body):
            self.send_response(number or 416)
            self.end_headers()
            return
        rest = self.body[start:] if kind != "whole" else self.body
        self.send_response(206 if start and kind != "whole" else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[:number] if kind == "cut" else rest)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, type[Server]]]:
    """The address of a file, and the handler that serves it."""
    handler = type("BoundServer", (Server,), {"faults": [], "ranges": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}/weights.safetensors", handler
        finally:
            running.shutdown()
            thread.join()


def hashed(address: str, body: bytes = BODY) -> str:
    return f"{address}#sha256={hashlib.sha256(body).hexdigest()}"


def test_a_file_is_fetched_once(server, tmp_path: Path) -> None:
    address, handler = server
    path = fetch_address(hashed(address), cache_dir=tmp_path)
    assert path.read_bytes() == BODY
    assert fetch_address(hashed(address), cache_dir=tmp_path) == path
    assert len(handler.ranges) == 1
    assert not list(tmp_path.rglob("*.part"))


def test_what_was_cut_is_continued(server, tmp_path: Path) -> None:
    address, handler = server
    handler.faults += [("cut", 1000), ("status", 503), ("cut", 2000)]
    assert fetch_address(hashed(address), cache_dir=tmp_path).read_bytes() == BODY
    assert handler.ranges == ["bytes=0-", "bytes=1000-", "bytes=1000-", "bytes=3000-"]


def test_a_server_that_knows_no_ranges_sends_it_all_again(server, tmp_path: Path) -> None:
    address, handler = server
    handler.faults += [("cut", 1000), ("whole", 0)]
    assert fetch_address(hashed(address), cache_dir=tmp_path).read_bytes() == BODY


def test_a_later_call_continues_where_an_earlier_one_gave_up(server, tmp_path: Path) -> None:
    address, handler = server
    handler.faults += [("cut", 1000)] * 5
    with pytest.raises(DownloadError, match=r"the body was cut after 1000 of \d+ bytes, 5 times. What arrived is kept"):
        fetch_address(hashed(address), cache_dir=tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))
    handler.ranges.clear()
    assert fetch_address(hashed(address), cache_dir=tmp_path).read_bytes() == BODY
    assert handler.ranges == ["bytes=5000-"]


def test_a_whole_part_is_checked_and_used(server, tmp_path: Path) -> None:
    address, handler = server
    digest = hashlib.sha256(BODY).hexdigest()
    (tmp_path / digest).mkdir()
    (tmp_path / digest / "weights.safetensors.part").write_bytes(BODY)
    assert fetch_address(hashed(address), cache_dir=tmp_path).read_bytes() == BODY
    assert handler.ranges == [f"bytes={len(BODY)}-"]


def test_other_bytes_are_thrown_away(server, tmp_path: Path, caplog) -> None:
    address, handler = server
    handler.body = BODY[:-1] + b"?"
    with pytest.raises(DownloadError, match="has the sha256 [0-9a-f]{64} and not .* thrown away"):
        fetch_address(hashed(address), cache_dir=tmp_path)
    assert not list(tmp_path.rglob("weights*"))
    handler.body = BODY
    path = fetch_address(hashed(address), cache_dir=tmp_path)
    path.write_bytes(b"?" + BODY[1:])
    assert fetch_address(hashed(address), cache_dir=tmp_path).read_bytes() == BODY
    assert "damaged in the cache" in caplog.text


def test_errors_say_what_is_wrong(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address, handler = server
    with pytest.raises(ConfigError, match="has no hash; write http.*#sha256= and the 64 digits"):
        fetch_address(address, cache_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"is no file of weights; allowed: names that end with \.safetensors"):
        fetch_address(hashed(address.replace(".safetensors", ".html")), cache_dir=tmp_path)
    handler.faults.append(("status", 404))
    with pytest.raises(DownloadError, match="the server answered 404"):
        fetch_address(hashed(address), cache_dir=tmp_path)
    with pytest.raises(DownloadError, match="the connection broke .* 5 times"):
        fetch_address(hashed("http://127.0.0.1:1/weights.pt"), cache_dir=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="Cannot keep http.* or pass another cache_dir"):
        fetch_address(hashed(address), cache_dir=tmp_path / "file")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE forbids the network"):
        fetch_address(hashed(address), cache_dir=tmp_path)


def test_a_model_is_loaded_by_architecture_and_address(server, tmp_path: Path) -> None:
    address, handler = server
    torch.manual_seed(0)
    model = clip_core.create_model("tiny")
    handler.body = save(model.state_dict())
    name = hashed(address, handler.body)
    for found in (
        clip_hub.load(f"tiny:{name}", cache_dir=tmp_path).model,
        clip_hub.create_model("tiny", name, cache_dir=tmp_path),
    ):
        assert torch.equal(found.text_projection, model.text_projection)
    handler.ranges.clear()
    assert clip_hub.create_model("tiny", name, device="meta", cache_dir=tmp_path / "other").logit_scale.is_meta
    with pytest.raises(UnknownModel, match="Unknown model 'tinny'"):
        clip_hub.create_model("tinny", name, cache_dir=tmp_path / "other")
    with pytest.raises(ConfigError, match="does not say its architecture"):
        clip_hub.load(name)
    assert handler.ranges == []
