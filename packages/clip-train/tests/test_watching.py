from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from clip_hub.retrying import Broken
from clip_train.data import ahead, piping
from clip_train.data.watching import LEAST_RATE, watched


def slow(blocks: list[bytes], pause: float) -> Iterator[bytes]:
    for block in blocks:
        time.sleep(pause)
        yield block


def test_blocks_arrive_in_their_order() -> None:
    blocks = [bytes([n]) * 5 for n in range(20)]
    assert list(watched(lambda: iter(blocks), 5, "it")) == blocks


def test_what_trickles_is_broken_off_and_what_is_slow_is_not() -> None:
    with pytest.raises(Broken, match="it has stalled: [0-9]+ bytes"):
        list(watched(lambda: slow([b"x"] * 50, 0.05), 0.4, "it"))
    enough = bytes(int(LEAST_RATE * 0.3))
    assert len(list(watched(lambda: slow([enough] * 6, 0.15), 0.4, "it"))) == 6


def test_only_waiting_counts() -> None:
    found = []
    for block in watched(lambda: iter([b"x"] * 4), 0.2, "it"):
        time.sleep(0.15)
        found.append(block)
    assert len(found) == 4


def test_an_error_of_the_transfer_is_passed_on() -> None:
    def broken() -> Iterator[bytes]:
        yield b"x"
        raise Broken("cut")

    with pytest.raises(Broken, match="^cut$"):
        list(watched(broken, 5, "it"))


needs_a_shell = pytest.mark.skipif(sys.platform == "win32", reason="the commands are those of a POSIX shell")


@needs_a_shell
@pytest.mark.failure(
    "pipe hangs",
    promise="What brings too few bytes is killed with all that it started, and tried again.",
)
def test_a_command_that_hangs_is_killed_with_all_that_it_started() -> None:
    mark = "987654.25"
    before = time.monotonic()
    with pytest.raises(Broken, match="has stalled: 3 bytes"):
        list(piping.piped(f"printf abc; sleep {mark} & sleep {mark}", 0.5))
    assert time.monotonic() - before < 20
    time.sleep(0.1)
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert f"sleep {mark}" not in listed.splitlines()
    # Nor is one of our children left that nobody has asked how it ended.
    children = subprocess.run(["ps", "-eo", "ppid,stat"], capture_output=True, text=True, check=True).stdout
    assert not [line for line in children.splitlines() if line.split()[0] == str(os.getpid()) and "Z" in line]


@needs_a_shell
def test_a_command_that_closes_its_output_and_stays_is_killed() -> None:
    with pytest.raises(Broken, match="has closed its output and does not end"):
        list(piping.piped("printf abc; exec >&-; sleep 987654.5", 0.5))


@needs_a_shell
def test_what_a_command_writes_and_says() -> None:
    assert b"".join(piping.piped("printf 'a b'", 5)) == b"a b"
    with pytest.raises(Broken, match=r"exit code 3 \(the last\)"):
        list(piping.piped("echo first >&2; echo the last >&2; exit 3", 5))


def test_what_is_wanted_is_brought_once_and_errors_are_left_to_the_reader() -> None:
    brought: list[int] = []

    def bring(number: int) -> None:
        time.sleep(0.05)
        brought.append(number)
        if number == 2:
            raise OSError("gone")

    made = ahead.Ahead(bring)
    for number in (2, 3, 2, 3, 3):
        made.want(number)
    deadline = time.monotonic() + 20
    while len(brought) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert brought == [2, 3]
    assert made.is_of_this_process
