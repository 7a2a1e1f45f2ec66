"""The files of features: killed after any line of the program, they are as if nothing had happened."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import clip_core
from clip_core.embedding.store import HEADER_BYTES, Store
from clip_core.errors import ConfigError, DataError, StorageError

PROGRAM = Path(__file__).with_name("kill_every_line.py")
SHARED = runpy.run_path(str(PROGRAM))
BROKEN, NAMES, ROWS, SETTINGS, WIDTH = (SHARED[name] for name in ("BROKEN", "NAMES", "ROWS", "SETTINGS", "WIDTH"))
work, assert_whole = SHARED["work"], SHARED["assert_whole"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
def test_a_kill_after_any_line_loses_and_doubles_nothing(tmp_path: Path) -> None:
    package = Path(clip_core.__file__).parent
    done = subprocess.run([sys.executable, PROGRAM, package, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert min(map(int, done.stdout.split())) > 100


def test_rows_and_lines_that_were_written_in_part_are_written_again(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)
    target = tmp_path / "f.npy"
    store = Store(target, WIDTH, len(NAMES), SETTINGS)
    store.append(3, ROWS[:3], [])
    store.append(3, ROWS[4:6], [(3, BROKEN[3])])
    store.close()
    journal = (tmp_path / "f.npy.journal").read_bytes()
    partial = (tmp_path / "f.npy.partial").read_bytes()
    for cut in range(1, len(journal)):
        (tmp_path / "f.npy.journal").write_bytes(journal[:-cut])
        (tmp_path / "f.npy.partial").write_bytes(partial + b"torn"[: cut % 4])
        work(target)
        assert_whole(target)
        for path in tmp_path.iterdir():
            path.unlink()


def test_a_partial_file_says_that_it_has_no_rows(tmp_path: Path) -> None:
    store = Store(tmp_path / "f.npy", WIDTH, len(NAMES), SETTINGS)
    store.append(3, ROWS[:3], [])
    assert np.load(tmp_path / "f.npy.partial").shape == (0, WIDTH)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.npy.journal", "f.npy.partial"]
    store.close()


def test_other_settings_are_refused_before_and_after_completion(tmp_path: Path) -> None:
    target = tmp_path / "f.npy"
    Store(target, WIDTH, len(NAMES), SETTINGS).close()
    with pytest.raises(ConfigError, match=r'begun with other settings: model \("m" there, "n" asked\)'):
        Store(target, WIDTH, len(NAMES), {**SETTINGS, "model": "n"})
    work(target)
    with pytest.raises(ConfigError, match=r"exists with other settings: sizes \(\[1, 2\] there, \[1\] asked\)"):
        Store(target, WIDTH, len(NAMES), {**SETTINGS, "sizes": [1]})
    again = work(target)
    assert (again.complete, again.rows, again.items) == (True, 6, 7)


def test_files_of_others_are_never_replaced(tmp_path: Path) -> None:
    target = tmp_path / "f.npy"
    target.write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"f.npy exists and has no f.npy.json beside it"):
        work(target)
    assert target.read_bytes() == b"mine"
    (tmp_path / "g.npy.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"g.npy.json exists and is not of this command"):
        work(tmp_path / "g.npy")
    work(tmp_path / "h.npy")
    (tmp_path / "h.npy").unlink()
    with pytest.raises(ConfigError, match=r"h.npy.json exists, h.npy does not"):
        work(tmp_path / "h.npy")


def test_damaged_partial_files_are_an_error(tmp_path: Path) -> None:
    store = Store(tmp_path / "f.npy", WIDTH, len(NAMES), SETTINGS)
    store.append(3, ROWS[:3], [])
    store.close()
    os.truncate(tmp_path / "f.npy.partial", HEADER_BYTES + 10)
    with pytest.raises(DataError, match=r"has 138 bytes and its journal speaks of 188"):
        work(tmp_path / "f.npy")
    (tmp_path / "f.npy.partial").unlink()
    with pytest.raises(DataError, match="f.npy.partial is missing"):
        work(tmp_path / "f.npy")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no lock")
def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    store = Store(tmp_path / "f.npy", WIDTH, len(NAMES), SETTINGS)
    with pytest.raises(StorageError, match="Another process is writing"):
        Store(tmp_path / "f.npy", WIDTH, len(NAMES), SETTINGS)
    store.close()
    work(tmp_path / "f.npy")


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Cannot write"):
        Store(tmp_path / "file" / "f.npy", WIDTH, len(NAMES), SETTINGS)


def test_rows_that_do_not_fit_are_a_defect_of_the_caller(tmp_path: Path) -> None:
    store = Store(tmp_path / "f.npy", WIDTH, len(NAMES), SETTINGS)
    with pytest.raises(ValueError, match="3 images, 1 of them broken"):
        store.append(3, ROWS[:3], [(0, "x")])
    with pytest.raises(ValueError, match="7 names for 0 images"):
        store.finish(NAMES, {})
    store.close()
