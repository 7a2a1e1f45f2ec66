"""The digit sets: nothing of the test pictures in training, every caption its own scene, the same bytes each time."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_core.errors import ConfigError, DataError
from clip_eval.datasets.digit_drawings import (
    CLASSNAMES,
    RIM,
    TEMPLATES,
    Drawing,
    Placed,
    Style,
    held_out_scenes,
    render,
    training_drawings,
)
from clip_eval.datasets.digits import build_digits, digit_split, load_scans
from clip_eval.wds import index_shard, open_dataset, read_member


def training_shards(folder: Path) -> list[Path]:
    return sorted((folder / "train").glob("*.tar"))


def pictures(paths: list[Path]) -> list[np.ndarray]:
    found = []
    for path in paths:
        for sample in index_shard(path):
            image = Image.open(io.BytesIO(read_member(sample, "png")))
            assert (image.mode, image.size) == ("RGB", (32, 32))
            found.append(np.asarray(image))
    return found


def test_split_is_stratified_and_complete() -> None:
    _, labels = load_scans()
    train, test = digit_split(labels)
    assert (len(train), len(test)) == (1437, 360)
    assert sorted([*train, *test]) == list(range(1797))
    for digit in range(10):
        share = (labels[test] == digit).sum() / (labels == digit).sum()
        assert share == pytest.approx(0.2, abs=0.005)


def test_no_scan_is_on_both_sides_not_even_as_a_copy() -> None:
    scans, labels = load_scans()
    train, test = digit_split(labels)
    assert scans[:, RIM:-RIM, RIM:-RIM].shape == (1797, 8, 8)
    assert not {scans[row].tobytes() for row in train} & {scans[row].tobytes() for row in test}


def test_training_drawings_show_training_scans_only_and_say_what_they_show() -> None:
    _, labels = load_scans()
    train, _ = digit_split(labels)
    by_digit = [train[labels[train] == digit] for digit in range(10)]
    style = Style((15, 28), (14, 16), (1, 3), 10, (0.7, 1), (0, 0.15))
    drawings = training_drawings(np.random.RandomState(3), by_digit, style, 3000, 0.6, 0.5)
    allowed = set(train.tolist())
    scenes = 0
    for drawing in drawings:
        assert {placed.scan for placed in drawing.digits} <= allowed
        if len(drawing.digits) == 1:
            name = CLASSNAMES[labels[drawing.digits[0].scan]]
            assert drawing.caption in {template.format(c=name) for template in TEMPLATES}
        else:
            scenes += 1
            assert_caption_true(drawing, labels)
    assert scenes == pytest.approx(1800, abs=100)


def assert_caption_true(drawing: Drawing, labels: np.ndarray) -> None:
    first, relation, second = re.fullmatch(
        r"an? (\w+) (to the left of|to the right of|above|below) an? (\w+)", drawing.caption
    ).groups()
    spots = [(CLASSNAMES[labels[placed.scan]], placed.x, placed.y) for placed in drawing.digits]
    true = {
        "to the left of": lambda a, b: a[1] < b[1] - 8,
        "to the right of": lambda a, b: a[1] > b[1] + 8,
        "above": lambda a, b: a[2] < b[2] - 8,
        "below": lambda a, b: a[2] > b[2] + 8,
    }[relation]
    assert any((a[0], b[0]) == (first, second) and true(a, b) for a, b in (spots, spots[::-1]))


def test_held_out_scenes_show_held_out_scans_and_each_scene_has_one_caption() -> None:
    _, labels = load_scans()
    _, test = digit_split(labels)
    scenes = held_out_scenes(labels, test)
    assert len(scenes) == 200
    captions = {scene.caption for scene in scenes}
    names = [f"an {name}" if name == "eight" else f"a {name}" for name in CLASSNAMES]
    relations = ("to the left of", "above")
    assert captions == {f"{a} {r} {b}" for a, b, r in itertools.product(names, names, relations)}
    allowed = set(test.tolist())
    for scene in scenes:
        assert {placed.scan for placed in scene.digits} <= allowed
        assert_caption_true(scene, labels)


def test_drawing_puts_the_digit_where_the_plan_says() -> None:
    scans, _ = load_scans()
    for x, y in ((8, 16), (24, 16), (16, 8), (16, 24)):
        pixels = np.asarray(render(scans, Drawing("", (Placed(0, x, y, 14.0),)))).astype(float)[..., 0]
        rows, columns = np.mgrid[:32, :32] + 0.5
        assert (pixels * columns).sum() / pixels.sum() == pytest.approx(x, abs=0.8)
        assert (pixels * rows).sum() / pixels.sum() == pytest.approx(y, abs=0.8)
        assert pixels[np.hypot(columns - x, rows - y) > 12].max() < 10


def test_a_digit_drawn_at_its_own_size_is_the_scan() -> None:
    scans, _ = load_scans()
    pixels = np.asarray(render(scans, Drawing("", (Placed(5, 16, 16, 8.0),))))[..., 0]
    assert np.array_equal(pixels[10:22, 10:22], scans[5])


def test_no_test_picture_is_among_the_training_pictures(digits: Path) -> None:
    train = {image.tobytes() for image in pictures(training_shards(digits))}
    test = {image.tobytes() for image in pictures([digits / "digits/test/0.tar", digits / "digit_scenes/test/0.tar"])}
    assert len(train) == 400
    assert len(test) == 560
    assert not train & test


def test_folders_are_what_open_dataset_reads(digits: Path) -> None:
    single, scenes = open_dataset(digits / "digits"), open_dataset(digits / "digit_scenes")
    assert (single.kind, scenes.kind) == ("classification", "retrieval")
    assert single.classnames == CLASSNAMES
    assert len(single.templates) >= 5
    assert np.bincount(single.labels).tolist() == [36, 37, 35, 37, 36, 36, 36, 36, 35, 36]
    assert len(scenes.samples) == 200
    assert all(len(captions) == 1 for captions in scenes.captions)
    assert [len(index_shard(path)) for path in training_shards(digits)] == [150, 150, 100]
    notes = " ".join(json.loads((digits / "digits" / "about.json").read_text())["notes"])
    assert "does not name its writers" in notes


def test_same_arguments_same_bytes_and_the_seed_changes_training_only(digits: Path, tmp_path: Path) -> None:
    def hashes(folder: Path) -> dict[str, str]:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    again = build_digits(tmp_path / "again", train_samples=400, samples_per_shard=150)
    other = build_digits(tmp_path / "100% other", train_samples=400, samples_per_shard=150, seed=1, scene_share=0.2)
    assert hashes(again) == hashes(digits)
    changed = {name for name, digest in hashes(other).items() if hashes(digits)[name] != digest}
    assert changed == {f"train/0000{number}.tar" for number in range(3)}


def test_an_occupied_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(DataError, match="already exists"):
        build_digits(tmp_path / "mine", train_samples=1)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written"):
        build_digits(tmp_path / "file" / "data", train_samples=1)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such file names")
def test_a_folder_is_a_folder_whatever_it_is_called(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = build_digits("pipe:touch pwned", train_samples=5, samples_per_shard=2)
    assert [len(index_shard(path)) for path in training_shards(folder)] == [2, 2, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["pipe:touch pwned"]


def test_leftovers_of_a_killed_build_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "data.partial" / "train").mkdir(parents=True)
    (tmp_path / "data.partial" / "train" / "00009.tar").write_bytes(b"half")
    folder = build_digits(tmp_path / "data", train_samples=3, progress=False)
    assert [path.name for path in training_shards(folder)] == ["00000.tar"]
    assert not (tmp_path / "data.partial").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"train_samples": 0},
        {"samples_per_shard": 0},
        {"scene_share": 1.5},
        {"converse_share": -0.1},
        {"scene_size": (16.0, 14.0)},
        {"single_size": (0.0, 20.0)},
        {"ink": (0.5, 2.0)},
    ],
)
def test_arguments_out_of_range(tmp_path: Path, wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        build_digits(tmp_path / "data", **wrong)
    assert not list(tmp_path.iterdir())
