"""A headless Chromium for tests of pages: opens a file at a size, answers JavaScript, takes screenshots.

It is driven through two pipes with Chrome's DevTools protocol, so it needs no library. What is not here: installing it.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["Browser", "browser", "find_chromium"]

_SECONDS = 30.0
# The protocol is spoken on the descriptors 3 and 4; both are moved out of the way first.
_ON_3_AND_4 = """
import fcntl, os, sys
high = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 16) for number in sys.argv[1:3]]
os.dup2(high[0], 3)
os.dup2(high[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_chromium() -> str | None:
    """The path of an installed Chromium or Chrome."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


class Browser:
    """One tab. Made by `browser()`."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._last, self._buffer = write, read, 0, b""
        self._session: str | None = None
        self.requests: list[str] = []
        """What pages asked for beside themselves and data URIs."""
        self.errors: list[str] = []
        """What was written to the console as an error, and exceptions nobody caught."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol; `RuntimeError` for an error or after 30 seconds without an answer."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._notice(answer)

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + _SECONDS
        while b"\0" not in self._buffer:
            part = os.read(self._read, 1 << 20)
            if not part or time.monotonic() > end:
                raise RuntimeError("Chromium gave no answer")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        data: dict[str, Any] = json.loads(message)
        return data

    def _notice(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent" if not parameters["request"]["url"].startswith("data:"):
                self.requests.append(parameters["request"]["url"])
            case "Runtime.exceptionThrown":
                self.errors.append(json.dumps(parameters["exceptionDetails"]))
            case "Log.entryAdded" if parameters["entry"]["level"] == "error":
                self.errors.append(parameters["entry"]["text"])

    def open(self, page: Path, *, width: int, height: int = 900, dark: bool = False, mobile: bool = False) -> None:
        """Show a file at a size in CSS pixels and wait until it is there."""
        self.requests.clear()
        self.errors.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        address = page.resolve().as_uri()
        self.call("Page.navigate", url=address)
        end = time.monotonic() + _SECONDS
        while self.ask("location.href.split('#')[0] + document.readyState") != f"{address}complete":
            if time.monotonic() > end:
                raise RuntimeError(f"{page} was not loaded")
            time.sleep(0.05)
        self.requests = [url for url in self.requests if url.split("#")[0] != address]

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def screenshot(self, target: Path, *, whole: bool = True, top: int = 0, height: int | None = None) -> Path:
        """A PNG of the page, or of `height` pixels of it from `top` on."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        high = min(size["height"] - top, height or (16000 if whole else 900))
        clip = {"x": 0, "y": top, "width": size["width"], "height": high, "scale": 1}
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(base64.b64decode(answer["data"]))
        return target


@contextmanager
def browser(path: str) -> Iterator[Browser]:
    """Start the Chromium at `path` with a profile of its own; it ends with the block."""
    with tempfile.TemporaryDirectory() as profile:
        ours, theirs = os.pipe(), os.pipe()  # what it reads, what it writes
        words = [
            *(path, "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}"),
            *(
                "--no-first-run",
                "--disable-gpu",
                "--hide-scrollbars",
                "--disable-dev-shm-usage",
                "--disable-extensions",
            ),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        ]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            words.append("--no-sandbox")  # it refuses to run as root with one; the pages are our own
        process = subprocess.Popen(
            [sys.executable, "-c", _ON_3_AND_4, str(ours[0]), str(theirs[1]), *words],
            pass_fds=(ours[0], theirs[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(ours[0])
        os.close(theirs[1])
        try:
            yield Browser(ours[1], theirs[0])
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(ours[1])
            os.close(theirs[0])
