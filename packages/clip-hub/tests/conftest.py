"""A Hub on 127.0.0.1 that huggingface_hub's client of this process speaks with; see tools/hub_server.py."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_server import HubServer


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """An empty Hub, with huggingface_hub's client pointed at it and at an empty cache (`hub.cache`)."""
    import huggingface_hub

    with HubServer() as server:
        server.attract(monkeypatch, tmp_path / "huggingface")
        yield server
        # Before 1.0 there is none to close.
        getattr(huggingface_hub, "close_session", lambda: None)()


@pytest.fixture(autouse=True)
def no_waiting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between tries the client and we wait for seconds; here nobody need, but with the real Hub one should."""
    if request.node.get_closest_marker("network"):
        return
    from types import SimpleNamespace

    from huggingface_hub import file_download

    import clip_hub.retrying

    clock = SimpleNamespace(sleep=lambda _: None, time=time.time, monotonic=time.monotonic)
    monkeypatch.setattr(file_download, "time", clock)
    http = sys.modules.get("huggingface_hub.utils._http")
    if http is not None:
        monkeypatch.setattr(http, "time", clock)
    monkeypatch.setattr(clip_hub.retrying, "sleep", lambda _: None)
