"""Unfinished files: who takes over what, and when."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clip_hub.partial import partial


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def unfinished(blob: Path, process: int, machine: str = "", data: bytes = b"half") -> Path:
    name = "".join(letter if letter.isalnum() else "_" for letter in machine or socket.gethostname())
    path = blob.with_name(f"{blob.name}.{name}-{process}-01234567.incomplete")
    path.write_bytes(data)
    return path


def test_what_a_download_leaves_the_next_one_continues(tmp_path: Path) -> None:
    blob = tmp_path / "hash"

    def interrupted() -> None:
        with partial(blob) as part:
            part.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with partial(blob) as part:
        assert part.read_bytes() == b"half"
        os.replace(part, blob)
    assert os.listdir(tmp_path) == ["hash"]


@pytest.mark.skipif(os.name != "posix", reason="elsewhere nobody can ask whether a process runs")
def test_a_file_of_a_dead_process_is_taken_and_one_of_a_living_is_not(tmp_path: Path) -> None:
    blob = tmp_path / "hash"
    living = unfinished(blob, os.getpid())
    with partial(blob) as part:
        assert not part.exists()
    assert living.exists()
    unfinished(blob, ended_process())
    with partial(blob) as part:
        assert part.read_bytes() == b"half"


def test_a_file_of_another_machine_is_taken_when_it_is_silent(tmp_path: Path) -> None:
    blob = tmp_path / "hash"
    path = unfinished(blob, 1, "elsewhere")
    with partial(blob) as part:
        assert not part.exists()
    os.utime(path, (time.time() - 3600,) * 2)
    with partial(blob) as part:
        assert part.read_bytes() == b"half"


def test_the_longest_is_taken_and_the_others_go(tmp_path: Path) -> None:
    blob = tmp_path / "hash"
    for number, data in enumerate((b"a", b"abc", b"ab")):
        path = blob.with_name(f"hash.{number:08x}.incomplete")  # as huggingface_hub leaves them
        path.write_bytes(data)
        os.utime(path, (0, 0))
    other = tmp_path / "hash2.incomplete"
    other.write_bytes(b"of another file")
    with partial(blob) as part:
        assert part.read_bytes() == b"abc"
    assert sorted(os.listdir(tmp_path)) == ["hash.incomplete", "hash2.incomplete"]
