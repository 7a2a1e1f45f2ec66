"""Answering HTTP with faults, and the "CDN" with a Hub's large files; see `hub_server`."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import re
import sys
import urllib.parse
from collections.abc import Mapping
from time import sleep  # by name: a test may replace time.sleep for the client
from typing import TYPE_CHECKING, Any

from hub_faults import STATUSES, Request

if TYPE_CHECKING:
    from hub_server import HubServer

__all__ = ["Cdn", "Handler", "Server"]


class Server(http.server.ThreadingHTTPServer):
    """One thread per connection."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away; anything else is a mistake of ours."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class Handler(http.server.BaseHTTPRequestHandler):
    """A request: taken down, met with its fault or routed, and answered."""

    hub: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_HEAD(self) -> None:
        self.handle_one()

    def do_GET(self) -> None:
        self.handle_one()

    def do_POST(self) -> None:
        self.handle_one()

    def do_PUT(self) -> None:
        self.handle_one()

    def do_DELETE(self) -> None:
        self.handle_one()

    def handle_one(self) -> None:
        address = urllib.parse.urlsplit(self.path)
        self.query = {key: values[-1] for key, values in urllib.parse.parse_qs(address.query).items()}
        self.content = self.received()
        file = self.file_of(address.path)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        asked = self.headers.get("Range", "")
        self.hub.requests.append(Request(self.command, self.path, file, asked, token))
        self.user = self.hub.tokens.get(token)
        fault = self.hub.take(file, address.path, self.command, body=False)
        with contextlib.suppress(ConnectionError):
            if fault is None:
                self.route(address.path)
            elif fault.kind == "drop":
                self.close_connection = True
            elif fault.kind == "gated":
                self.refuse(403, "GatedRepo", "Access to this model is restricted.")
            elif fault.kind == "missing":
                self.refuse(404, "EntryNotFound", "Entry not found")
            else:
                after = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
                self.answer(STATUSES[fault.kind], b"", after)

    def received(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def file_of(self, path: str) -> str:
        raise NotImplementedError

    def route(self, path: str) -> None:
        raise NotImplementedError

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def tell(self, value: object, status: int = 200) -> None:
        self.answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def refuse(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        named = {"X-Error-Code": code, "X-Error-Message": message, "Content-Type": "application/json"}
        self.answer(status, json.dumps({"error": message}).encode(), {**named, **(headers or {})})

    def serve(self, file: str, data: bytes, headers: Mapping[str, str]) -> None:
        """The bytes of a file, or the part of them that was asked for, with the fault that it meets."""
        fault = None if self.command == "HEAD" else self.hub.take(file, "", self.command, body=True)
        kind = fault.kind if fault else ""
        if kind == "flip":
            assert fault is not None
            place = len(data) // 2 if fault.at is None else fault.at % len(data)
            data = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        total = len(data)
        data = {"short": data[:-1], "empty": b""}.get(kind, data)
        status, start = 200, 0
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        extra = {"Accept-Ranges": "bytes", **headers}
        if asked and kind not in ("no range", "empty"):
            start = int(asked[1])
            end = min(int(asked[2]) + 1 if asked[2] else total, len(data))
            if start >= total:
                return self.answer(416, b"", {"Content-Range": f"bytes */{total}"})
            data, status = data[start:end], 206
            extra["Content-Range"] = f"bytes {start}-{start + max(len(data), 1) - 1}/{total}"
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **extra}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return None
        if fault is not None and kind in ("cut", "stall"):
            self.close_connection = True
            data = data[: len(data) // 2 if fault.at is None else max(0, fault.at - start)]
        if fault is not None and kind == "slow":
            step = max(1, len(data) // 10)
            for place in range(0, len(data), step):
                self.wfile.write(data[place : place + step])
                sleep(fault.seconds)
            return None
        self.wfile.write(data)
        if fault is not None and kind == "stall":
            sleep(fault.seconds)
        return None

    def log_message(self, *_: object) -> None:
        pass


class Cdn(Handler):
    """Large files by repository and sha256; the address is the permission."""

    def file_of(self, path: str) -> str:
        return urllib.parse.unquote(path.split("/", 3)[3]) if path.count("/") >= 3 else ""

    def route(self, path: str) -> None:
        repo, digest, file = map(urllib.parse.unquote, path.lstrip("/").split("/", 2))
        if self.command == "PUT":
            if hashlib.sha256(self.content).hexdigest() != digest:
                return self.answer(400, b"BadDigest")
            self.hub.repositories[repo].uploads[digest] = self.content
            return self.answer(200, b"", {"ETag": f'"{digest}"'})
        data = self.hub.by_hash(repo, digest)
        if data is None:
            return self.answer(404, b"NoSuchKey")
        return self.serve(file, data, {"ETag": f'"{digest[:32]}"', "Content-Type": "application/octet-stream"})
