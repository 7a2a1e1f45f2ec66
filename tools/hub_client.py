"""Clients of a test's Hub in processes of their own, to be killed, to meet, or to run out of room.

They are forked from one process that has imported everything, so that a client costs milliseconds.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

__all__ = ["Client"]


class Client:
    """A process that fetches one file of one repository: `kill` it, or take its `answer`."""

    def __init__(self, url: str, home: Path, repo: str, name: str, *, room: int | None = None) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["clip_hub.download", "huggingface_hub.hf_api", "pytest", "hub_server"])
        self._ours, theirs = context.Pipe(duplex=False)
        asked = (theirs, url, home, repo, name, room)
        self._process: ForkServerProcess = context.Process(target=_fetch, args=asked, daemon=True)
        self._process.start()
        theirs.close()

    def kill(self) -> None:
        """End it at once, whatever it is doing (SIGKILL)."""
        self._process.kill()
        self._close()

    def answer(self) -> str:
        """The path that it got, or "error: " and what it was told."""
        try:
            return str(self._ours.recv())
        finally:
            self._close()

    def _close(self) -> None:
        self._process.join()
        self._process.close()
        self._ours.close()


def _fetch(answer: Connection, url: str, home: Path, repo: str, name: str, room: int | None) -> None:
    import pytest
    from huggingface_hub import constants

    from clip_hub.download import DownloadError, fetch
    from hub_server import attract

    patch = pytest.MonkeyPatch()  # never undone: the process ends
    attract(url, home, patch)
    patch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 10)
    if room is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    try:
        answer.send(str(fetch(repo, [name])))
    except DownloadError as error:
        answer.send(f"error: {error}")
