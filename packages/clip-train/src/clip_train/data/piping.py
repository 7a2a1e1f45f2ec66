"""What a shell command writes, as blocks: `pipe:aws s3 cp s3://bucket/0.tar -`. Commands that fail or hang are ended.

The command and all that it starts are one process group, which is killed as a whole. What this room leaves out: trying
again, and whether the bytes are the right ones (`fetching`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from clip_hub.retrying import Broken
from clip_train.data.watching import watched

__all__ = ["piped"]

_BLOCK = 1 << 20


def piped(command: str, stall: float) -> Iterator[bytes]:
    """The blocks that `command` writes to its standard output.

    Raises `Broken` when it brings too little for `stall` seconds (see `watching`), does not end within `stall` seconds
    of its last byte, or ends with an exit code that is not 0.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(  # noqa: S602  # a command line of the user's own, for the shell
            command,
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=sys.platform != "win32",
        )
        assert process.stdout is not None
        output = process.stdout

        def blocks() -> Iterator[bytes]:
            with output:
                while block := os.read(output.fileno(), _BLOCK):
                    yield block

        try:
            yield from watched(blocks, stall, repr(command))
            try:
                code = process.wait(stall)
            except subprocess.TimeoutExpired:
                raise Broken(f"{command!r} has closed its output and does not end") from None
            if code:
                raise Broken(f"{command!r} ended with exit code {code}{_last_line(errors)}")
        finally:
            _end(process)


def _last_line(errors: Any) -> str:
    errors.seek(0, 2)
    errors.seek(max(0, errors.tell() - 2000))
    lines = [line for line in errors.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return f" ({lines[-1].strip()})" if lines else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process group, also when the command itself has ended and left something running."""
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
