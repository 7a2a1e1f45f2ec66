"""Kills a process that writes features after its first line, its second line and so on; `test_embedding_store` runs it.

A program of its own because forking is quick only in a process that has not loaded torch. Arguments: the folder of the
package, an empty folder. Prints how many lines there are.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sys
import traceback
import types
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    for package in ("clip_core", "clip_core.embedding"):
        # Stands in for the package, whose __init__ would load torch.
        module = types.ModuleType(package)
        module.__path__ = [str(Path(sys.argv[1]).joinpath(*package.split(".")[1:]))]
        sys.modules[package] = module

from clip_core.embedding import store as store_module
from clip_core.embedding.store import HEADER_BYTES, Store

WIDTH = 5
NAMES = [f"{i}.png" for i in range(7)]
ROWS = np.random.default_rng(0).standard_normal((7, WIDTH)).astype(np.float32)
BROKEN = {3: "cut short"}
SETTINGS = {"model": "m", "sizes": [1, 2]}
KEPT = [i for i in range(7) if i not in BROKEN]


def copy(rows: Path, target: Path, names, provenance) -> None:
    """A stand-in for another format: the NumPy file, then the names."""
    target.write_bytes(rows.read_bytes() + "".join(names).encode())


def work(target: Path, writer=None, batch: int = 3) -> Store:
    """One whole run, from wherever the last one stopped."""
    store = Store(target, WIDTH, len(NAMES), SETTINGS)
    while store.items < len(NAMES):
        indices = range(store.items, min(store.items + batch, len(NAMES)))
        good = [i for i in indices if i not in BROKEN]
        store.append(len(indices), ROWS[good], [(i, BROKEN[i]) for i in indices if i in BROKEN])
    if not store.complete:
        store.finish(NAMES, {"device": "cpu"}, writer)
    store.close()
    return store


def assert_whole(target: Path, writer=None) -> None:
    """The results are those of a run that nobody stopped."""
    if writer is None:
        assert np.array_equal(np.load(target), ROWS[KEPT])
        assert target.with_name("f.npy.names.txt").read_text() == "".join(NAMES[i] + "\n" for i in KEPT)
    else:
        data, names = target.read_bytes(), "".join(NAMES[i] for i in KEPT).encode()
        assert data[HEADER_BYTES:] == ROWS[KEPT].tobytes() + names
    broken = target.with_name(target.name + ".broken.jsonl").read_text()
    assert json.loads(broken) == {"name": "3.png", "reason": "cut short"}


def dies_after(lines: int, target: Path, writer) -> bool:
    """Whether a process that does the work was killed after so many lines of the store; it ends by itself if not."""
    child = os.fork()
    if child == 0:
        left = lines

        def trace(frame, event, argument):
            nonlocal left
            if frame.f_code.co_filename != store_module.__file__:
                return None
            left -= event == "line"
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        try:
            sys.settrace(trace)
            work(target, writer)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def kill_after_every_line(folder: Path, writer) -> int:
    """The number of lines after which it was tried."""
    target = folder / ("f.npy" if writer is None else "f.other")
    extra = {"f.npy.names.txt"} if writer is None else set()
    expected = {target.name + ending for ending in ("", ".json", ".broken.jsonl")} | extra
    for lines in itertools.count():
        killed = dies_after(lines, target, writer)
        if target.exists():
            assert_whole(target, writer)
        dies_after(lines // 2, target, writer)  # what goes on after a kill may be killed as well
        work(target, writer)
        assert_whole(target, writer)
        assert {path.name for path in folder.iterdir()} == expected
        shutil.rmtree(folder)
        if not killed:
            return lines
    raise AssertionError


if __name__ == "__main__":
    os.fsync = lambda file: None  # a kill leaves what the system holds; fsync is for power cuts
    print(*(kill_after_every_line(Path(sys.argv[2]) / "out", writer) for writer in (None, copy)))
