"""A Hub on 127.0.0.1 that huggingface_hub's client of this process speaks with; see tools/hub_server.py."""

from __future__ import annotations

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
