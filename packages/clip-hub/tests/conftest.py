"""A Hub on 127.0.0.1 that speaks what huggingface_hub's client asks of it when it downloads, with faults on demand."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

COMMIT = "c0ffee" * 6 + "c0ff"


@dataclass
class Hub:
    """Files by (repository, name); `fault` is asked for each request and may name what goes wrong."""

    url: str = ""
    cache: Path = Path()
    files: dict[tuple[str, str], bytes] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    git_hashes: bool = False
    """Name files by their git hash, as the Hub does with small ones."""


class Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        self.hub.requests.append((self.command, self.path))
        owner, name, _, _, *rest = self.path.split("?")[0].lstrip("/").split("/")
        repo, file = f"{owner}/{name}", "/".join(rest)
        fault = self.hub.faults.get(file) or self.hub.faults.get("*")
        if fault in ("500", "503"):
            return self.fail(int(fault), "")
        if fault == "gated":
            return self.fail(403, "GatedRepo")
        if not any(known == repo for known, _ in self.hub.files):
            return self.fail(404, "RepoNotFound")
        data = self.hub.files.get((repo, file))
        if data is None:
            return self.fail(404, "EntryNotFound")
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        etag = git if self.hub.git_hashes else hashlib.sha256(data).hexdigest()
        self.send_header("ETag", f'"{etag}"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if not body:
            return None
        if fault == "flip" or (fault == "flip once" and self.hub.faults.pop(file)):
            data = data[:-1] + bytes([data[-1] ^ 1])
        if fault == "cut":
            data = data[: len(data) // 2]
            self.close_connection = True
        with contextlib.suppress(ConnectionError):
            self.wfile.write(data)
        return None

    def fail(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        if code == "EntryNotFound":
            self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty Hub, with huggingface_hub's client pointed at it and at an empty cache."""
    from huggingface_hub import constants, file_download, utils

    # Before 1.0 the client asked whether it is offline when a session was made, and kept the session.
    getattr(utils, "reset_sessions", lambda: None)()
    state = Hub(cache=tmp_path / "cache")
    handler = type("BoundHandler", (Handler,), {"hub": state})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", state.url)
        template = state.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        # Before 1.0 the client kept a second copy of the template.
        monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(state.cache))
        monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
