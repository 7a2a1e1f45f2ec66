"""Marks comparisons: every test of a file that imports a peer carries `parity`, which `nox -s parity` chooses."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

PEERS = ("open_clip", "open_clip_train", "torchmetrics", "transformers")
_IMPORT = re.compile(rf"^\s*(?:import|from) (?:{'|'.join(PEERS)})\b", re.MULTILINE)


@functools.cache
def _imports_a_peer(path: Path) -> bool:
    return _IMPORT.search(path.read_text(encoding="utf-8")) is not None


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Pytest's hook: adds the mark to what was collected."""
    for item in items:
        if _imports_a_peer(item.path):
            item.add_marker("parity")
