from __future__ import annotations

import logging
import os
import shutil
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from clip_core.errors import ConfigError
from clip_train.checkpoint import manifest
from clip_train.mirror import Mirror


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "logs" / "mine"
    (made / "checkpoints").mkdir(parents=True)
    (made / "metrics.jsonl").write_text("1\n", encoding="utf-8")
    return made


def published(run: Path, name: str, data: bytes) -> Path:
    """A checkpoint of two files, one of them hidden and in a folder, as in a sharded one."""
    made = run / "checkpoints" / name
    (made / "shards").mkdir(parents=True)
    (made / "weights").write_bytes(data)
    (made / "shards" / ".metadata").write_bytes(data)
    manifest.publish(made, int(name[-8:]), stays=True)
    return made


@pytest.fixture
def replaced(folder: Path, tmp_path: Path) -> Path:
    """A checkpoint of the run; over there, in `remote`, is one of its name from a run before, whole by itself."""
    remote = tmp_path / "remote"
    Mirror(folder, str(remote), seconds=1000, protocol="fsspec").copy()
    made = published(folder, "step-00000001", b"new")
    published(remote / "mine", made.name, b"old")
    return made


def contents(place: Path) -> dict[str, str]:
    return {str(path.relative_to(place)): path.read_text() for path in place.rglob("*") if path.is_file()}


def test_the_copy_follows_the_run_and_is_whole_at_the_end(folder: Path, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    with Mirror(folder, f"file://{remote}", seconds=1, protocol="fsspec"):
        assert contents(remote / "mine") == {"metrics.jsonl": "1\n"}
        (folder / "metrics.jsonl").write_text("1\n2\n", encoding="utf-8")
        limit = time.monotonic() + 20
        while contents(remote / "mine") != {"metrics.jsonl": "1\n2\n"} and time.monotonic() < limit:
            time.sleep(0.05)
        assert contents(remote / "mine") == {"metrics.jsonl": "1\n2\n"}
        (folder / "summary.json").write_text("{}", encoding="utf-8")
    assert contents(remote / "mine") == contents(folder)


def test_only_what_has_changed_is_copied(folder: Path, tmp_path: Path) -> None:
    mirror = Mirror(folder, str(tmp_path / "remote"), seconds=1000, protocol="fsspec")
    assert (mirror.copy(), mirror.copy()) == (1, 0)
    (folder / "checkpoints" / "a").write_text("a", encoding="utf-8")
    assert mirror.copy() == 1


def test_a_manifest_comes_after_what_it_names(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a-manifest.json", "manifest.json", "weights", "z"):
        (folder / "checkpoints" / name).write_text("x", encoding="utf-8")
    order: list[str] = []
    monkeypatch.setattr(Mirror, "_copy_one", lambda self, path: order.append(path.name))
    Mirror(folder, str(tmp_path / "remote"), seconds=1000, protocol="fsspec").copy()
    assert {"weights", "z", "metrics.jsonl"} == set(order[:3])


def test_a_place_that_cannot_be_written_is_found_at_once(folder: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("", encoding="utf-8")
    with (
        pytest.raises(ConfigError, match=r"--remote-sync .*blocked/mine cannot be written"),
        Mirror(folder, str(blocked), seconds=1, protocol="fsspec"),
    ):
        pass


def test_a_failure_on_the_way_is_logged_and_mended_by_the_next_copy(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    remote = tmp_path / "remote"
    caplog.set_level(logging.WARNING, "clip_train.mirror")
    with Mirror(folder, str(remote), seconds=1000, protocol="fsspec") as mirror:
        honest, mirror.remote = mirror.remote, "nosuch://x"
        (folder / "new").write_text("new", encoding="utf-8")
        mirror._try()
        assert "is behind" in caplog.text
        mirror.remote = honest
    assert contents(remote / "mine") == contents(folder)


def test_a_file_that_disappears_is_no_failure(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = Mirror(folder, str(tmp_path / "remote"), seconds=1000, protocol="fsspec")
    gone = folder / "checkpoints" / "gone"
    monkeypatch.setattr(Mirror, "_files", lambda self: [gone, folder / "metrics.jsonl"])
    gone.write_text("x", encoding="utf-8")
    os.remove(gone)
    mirror._copy_one(gone)
    mirror._copy_one(folder / "metrics.jsonl")
    assert set(contents(tmp_path / "remote" / "mine")) == {"metrics.jsonl"}


def test_aws_is_called_as_open_clip_calls_it(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "aws"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nset -f\necho "$@" > {tmp_path}/called\nexit $(cat {tmp_path}/code)\n', encoding="utf-8"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    (tmp_path / "code").write_text("0", encoding="utf-8")
    mirror = Mirror(folder, "s3://bucket/runs/", seconds=1000, protocol="s3")
    mirror.copy()
    call = ["s3", "sync", str(folder), "s3://bucket/runs/mine"]
    assert (tmp_path / "called").read_text().split() == [*call, "--exclude", "*manifest.json"]
    published(folder, "step-00000001", b"x")
    mirror.copy()
    # Manifests come after what they name.
    which = ["--exclude", "*", "--include", "checkpoints/step-00000001/manifest.json"]
    assert (tmp_path / "called").read_text().split() == [*call, *which]
    (tmp_path / "code").write_text("3", encoding="utf-8")
    with pytest.raises(ConfigError, match="ended with 3"):
        mirror.copy()


def test_a_run_that_is_started_again_copies_no_checkpoint_twice(folder: Path, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    for number in (1, 2, 3):
        published(folder, f"step-0000000{number}", b"%d" % number)
    assert Mirror(folder, f"file://{remote}", seconds=1000, protocol="fsspec").copy() == 10
    there = remote / "mine" / "checkpoints"
    # One was cut off when the first run was killed; another one has the same name and other numbers.
    (there / "step-00000002" / "weights").write_bytes(b"")
    shutil.rmtree(folder / "checkpoints" / "step-00000003")
    published(folder, "step-00000003", b"4")
    again = Mirror(folder, f"file://{remote}", seconds=1000, protocol="fsspec")
    assert again.copy() == 7
    assert contents(remote / "mine") == contents(folder)
    assert [manifest.verify(path) for path in sorted(there.iterdir())] == [None] * 3
    assert again.copy() == 0


def test_half_a_checkpoint_never_looks_whole_over_there(
    folder: Path, replaced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = tmp_path / "remote"
    there = remote / "mine" / "checkpoints" / replaced.name
    mirror = Mirror(folder, str(remote), seconds=1000, protocol="fsspec")
    honest, seen = mirror._copy_one, []

    def watched(path: Path) -> None:
        seen.append((path.name, (there / "manifest.json").exists()))
        honest(path)

    # Looked at while it was written: one of its files is not in the list.
    listed = mirror._files()
    monkeypatch.setattr(mirror, "_copy_one", watched)
    monkeypatch.setattr(mirror, "_files", lambda: [path for path in listed if path.name != ".metadata"])
    mirror.copy()
    assert seen == [("weights", False), ("metrics.jsonl", False)]
    assert not (there / "manifest.json").exists()
    monkeypatch.setattr(mirror, "_files", lambda: listed)
    mirror.copy()
    assert seen[2:] == [(".metadata", False), ("manifest.json", False)]
    assert manifest.verify(there) is None


def test_a_checkpoint_that_cannot_be_compared_is_asked_about_again_before_it_is_copied(
    folder: Path, replaced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = tmp_path / "remote"
    there = remote / "mine" / "checkpoints" / replaced.name
    mirror = Mirror(folder, str(remote), seconds=1000, protocol="fsspec")
    system = type(mirror._place(replaced)[0])
    with monkeypatch.context() as patch:
        patch.setattr(system, "cat_file", Mock(side_effect=TimeoutError("no answer")))
        with pytest.raises(TimeoutError):
            mirror.copy()
    # Nothing of the new one stands beside the manifest of the old one.
    assert manifest.verify(there) is None
    mirror.copy()
    assert contents(remote / "mine") == contents(folder)
    assert manifest.verify(there) is None
