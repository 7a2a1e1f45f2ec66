from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from clip_train.checkpoint import disk, manifest, newest, published, verify
from clip_train.checkpoint.manifest import MANIFEST, prune, publish, scratch_folder, sweep


def save(root: Path, step: int, *, stays: bool = False) -> Path:
    folder = scratch_folder(root, step)
    disk.make_folder(folder)
    disk.write_text(folder / "state.json", f"step {step}")
    (folder / "inner").mkdir()
    disk.write_text(folder / "inner" / "weights", "w" * step)
    publish(folder, step, stays=stays)
    return folder


def damage(folder: Path) -> None:
    path = folder / "inner" / "weights"
    path.write_text(path.read_text().replace("w", "v", 1))


def steps(root: Path) -> list[int]:
    return [entry.step for entry in published(root)]


def test_a_manifest_names_every_file(tmp_path: Path) -> None:
    folder = save(tmp_path / "checkpoints", 12)
    assert folder.name == "step-00000012"
    body = json.loads((folder / MANIFEST).read_text())
    assert {name: file["bytes"] for name, file in body["files"].items()} == {"state.json": 7, "inner/weights": 12}
    assert verify(folder) is None


def test_whatever_happens_to_a_file_is_noticed(tmp_path: Path) -> None:
    for number, (harm, words) in enumerate(
        [
            (damage, "its sha256 differs"),
            (lambda f: (f / "state.json").write_text("longer than it was"), "18 bytes where the manifest says 6"),
            (lambda f: (f / "state.json").unlink(), "state.json is missing"),
            (lambda f: (f / MANIFEST).write_text("{"), "manifest.json is missing or cannot be read"),
            (lambda f: (f / MANIFEST).unlink(), "manifest.json is missing or cannot be read"),
        ]
    ):
        folder = save(tmp_path / str(number), 3)
        harm(folder)
        assert words in str(verify(folder))


@pytest.mark.failure(
    "partial checkpoint",
    promise="Sizes and hashes are verified; the newest good checkpoint is taken, damaged ones are named and skipped.",
)
def test_the_newest_good_one_is_taken_and_damaged_ones_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert newest(tmp_path / "nothing") is None
    folders = [save(tmp_path, step) for step in (5, 10, 100_000_000)]
    assert steps(tmp_path) == [5, 10, 100_000_000]
    damage(folders[2])
    damage(folders[1])
    with caplog.at_level(logging.WARNING):
        assert newest(tmp_path) == folders[0]
    assert all(f"{folder} is damaged and skipped" in caplog.text for folder in folders[1:])
    (tmp_path / "step-00000200").mkdir()
    assert newest(tmp_path) == folders[0]
    # Without the look at its bytes the last one would be taken.
    monkeypatch.setattr(manifest, "verify", lambda folder: None)
    assert newest(tmp_path) == folders[2]


def test_a_name_is_never_used_twice(tmp_path: Path) -> None:
    first, second, third = (save(tmp_path, 5) for _ in range(3))
    assert [path.name for path in (first, second, third)] == ["step-00000005", "step-00000005.2", "step-00000005.3"]
    assert newest(tmp_path) == third


def test_two_good_ones_are_never_deleted(tmp_path: Path) -> None:
    folders = [save(tmp_path, step, stays=step in (1, 2)) for step in range(1, 7)]
    prune(tmp_path, only_newest=False)
    assert steps(tmp_path) == [1, 2, 5, 6]
    prune(tmp_path, only_newest=True, trusted=[folders[5]])
    assert steps(tmp_path) == [5, 6]
    damage(folders[4])
    newer = save(tmp_path, 7)
    prune(tmp_path, only_newest=True)
    assert steps(tmp_path) == [6, 7]
    damage(newer)
    save(tmp_path, 8)
    prune(tmp_path, only_newest=True)
    assert steps(tmp_path) == [6, 7, 8]
    damage(folders[5])
    prune(tmp_path, only_newest=True)
    assert steps(tmp_path) == [6, 7, 8]


def test_what_a_killed_save_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    good = save(tmp_path, 5)
    for name in ("step-00000006", "step-00000005.2", "aside-step-00000004", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text("half")
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aside-step-00000004", "mine", good.name]
    assert verify(good) is None
    sweep(tmp_path / "nothing")
