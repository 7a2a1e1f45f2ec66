"""The sets of the suite `quick`: what they show and ask, and that each one opens (`clip_eval.datasets.quick`)."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from math import comb
from pathlib import Path

import numpy as np
import pytest

from clip_core.errors import DataError
from clip_eval.catalogue import find
from clip_eval.datasets.digit_drawings import CANVAS, CLASSNAMES, held_out_scenes
from clip_eval.datasets.digits import digit_split, load_scans
from clip_eval.datasets.quick import QUICK_SETS, build_quick, cached_quick
from clip_eval.datasets.quick_drawings import PAPERS, SIZES, pages, papers, riddles, scene_captions, swaps
from clip_eval.suites import suite
from clip_eval.wds import open_dataset


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_quick(tmp_path_factory.mktemp("quick") / "sets")


@pytest.fixture(scope="module")
def split() -> tuple[np.ndarray, np.ndarray]:
    _, labels = load_scans()
    return labels, digit_split(labels)[1]


def test_the_suite_the_catalogue_and_the_folders_agree(quick: Path) -> None:
    assert suite("quick").datasets == tuple(QUICK_SETS)
    assert sorted(path.name for path in quick.iterdir()) == sorted(QUICK_SETS)
    kinds = set()
    for name in QUICK_SETS:
        dataset, entry = open_dataset(quick / name), find(name)
        kinds.add(dataset.kind)
        assert dataset.kind == entry.kind
        assert entry.build == "clip-eval build quick"
        asked = {"caption_choice": len(set(dataset.examples)), "association": len(dataset.associations)}
        assert asked.get(dataset.kind, len(dataset.samples)) == entry.test
        assert entry.classes in (None, len(dataset.classnames))
        if entry.captions and dataset.kind == "retrieval":
            assert sum(map(len, dataset.captions)) == entry.captions
        if entry.groups:
            assert dataset.metadata_fields == entry.groups.fields
    assert kinds == {"classification", "multilabel", "retrieval", "caption_choice", "association"}


def test_a_train_split_for_the_probe(quick: Path) -> None:
    train, test = open_dataset(quick / "digits", "train"), open_dataset(quick / "digits")
    assert (len(train.samples), len(test.samples)) == (1437, 360)
    assert set(train.labels) == set(test.labels) == set(range(10))


def test_the_same_bytes_every_time(quick: Path, tmp_path: Path) -> None:
    again = build_quick(tmp_path / "again")

    def hashes(folder: Path) -> dict[str, str]:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    assert hashes(again) == hashes(quick)
    with pytest.raises(DataError, match="not an empty folder"):
        build_quick(again)


def test_all_pictures_show_held_out_scans(split: tuple[np.ndarray, np.ndarray]) -> None:
    labels, test = split
    drawings = [page.drawing for page in pages(labels, test)] + [paper.drawing for paper in papers(labels, test)]
    drawings += [scene for pair in swaps(labels, test) for scene in pair]
    assert {placed.scan for drawing in drawings for placed in drawing.digits} <= set(test.tolist())


def test_pages_say_what_is_on_them(split: tuple[np.ndarray, np.ndarray]) -> None:
    labels, test = split
    found = pages(labels, test)
    assert Counter(len(page.present) for page in found) == dict.fromkeys(range(5), 40)
    for page in found:
        assert sorted(labels[placed.scan] for placed in page.drawing.digits) == list(page.present)
        spots = {(placed.x < CANVAS / 2, placed.y < CANVAS / 2) for placed in page.drawing.digits}
        assert len(spots) == len(page.present)


def test_papers_have_every_digit_on_every_paper_in_every_size(split: tuple[np.ndarray, np.ndarray]) -> None:
    labels, test = split
    found = papers(labels, test)
    assert sorted(paper.drawing.digits[0].scan for paper in found) == test.tolist()
    counts = Counter((paper.label, paper.paper, paper.size) for paper in found)
    assert len(counts) == 10 * len(PAPERS) * len(SIZES)
    assert min(counts.values()) >= 5
    for paper in found:
        assert paper.label == labels[paper.drawing.digits[0].scan]
        assert abs(paper.drawing.ink - paper.drawing.paper) > 0.5


def test_swaps_change_nothing_but_the_places(split: tuple[np.ndarray, np.ndarray]) -> None:
    labels, test = split
    found = swaps(labels, test)
    assert len({scene.caption for pair in found for scene in pair}) == 180
    for pair in found:
        assert {placed.scan for placed in pair[0].digits} == {placed.scan for placed in pair[1].digits}
        for scene in pair:
            one, other = scene.caption.split()[1], scene.caption.split()[-1]
            spots = {CLASSNAMES[labels[placed.scan]]: placed for placed in scene.digits}
            if " above " in scene.caption:
                assert spots[one].y < spots[other].y - 8
            else:
                assert spots[one].x < spots[other].x - 8


def test_captions_tell_one_scene_only(split: tuple[np.ndarray, np.ndarray]) -> None:
    labels, test = split
    told: list[str] = []
    for scene in held_out_scenes(labels, test):
        first, second = (int(labels[placed.scan]) for placed in scene.digits)
        relation = "above" if " above " in scene.caption else "to the left of"
        captions = scene_captions(first, second, relation)
        assert captions[0] == scene.caption
        told += captions
    assert len(told) == len(set(told)) == 1000


def test_riddles_and_what_guessing_scores(split: tuple[np.ndarray, np.ndarray]) -> None:
    labels, test = split
    shown = [int(labels[scan]) for scan in test]
    found = riddles(shown)
    assert Counter(len(riddle.candidates) for riddle in found) == {5: 30, 6: 30, 10: 30, 12: 30}
    chances = []
    for riddle in found:
        n, k = len(riddle.candidates), len(riddle.right)
        assert {place for place in riddle.candidates if CLASSNAMES[shown[place]] == riddle.cue} == set(riddle.right)
        assert 2 <= k < n
        if n >= 10:
            # Of k pictures drawn from n, i are right: hypergeometric; the Jaccard index is i / (2k - i).
            drawn = [comb(k, i) * comb(n - k, k - i) / comb(n, k) * i / (2 * k - i) for i in range(k + 1)]
            chances.append(sum(drawn))
    assert find("digit_riddles").chance == pytest.approx(np.mean(chances), abs=1e-4)


def test_what_guessing_scores_on_pages(split: tuple[np.ndarray, np.ndarray]) -> None:
    shares = [len(page.present) / 10 for page in pages(*split)]
    assert find("digit_pages").chance == pytest.approx(np.mean(shares))


def test_the_cache_is_written_once_and_whole(quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clip_eval.datasets import quick as module

    written = []

    def copy(folder: Path) -> Path:
        written.append(folder)
        return Path(shutil.copytree(quick, folder))

    monkeypatch.setattr(module, "build_quick", copy)
    assert open_dataset(cached_quick("digit_pages", cache_dir=tmp_path / "cache")).kind == "multilabel"
    assert cached_quick("digits", cache_dir=tmp_path / "cache") == tmp_path / "cache" / "quick-1" / "digits"
    assert len(written) == 1
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["quick-1"]

    def second(folder: Path) -> Path:
        # Another process is done first.
        shutil.copytree(quick, tmp_path / "other" / "quick-1")
        return copy(folder)

    monkeypatch.setattr(module, "build_quick", second)
    assert open_dataset(cached_quick("digit_swaps", cache_dir=tmp_path / "other")).kind == "caption_choice"
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["quick-1"]
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        cached_quick("digits", cache_dir=tmp_path / "file")


def test_the_commands_write_and_find_them(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from clip_eval.cli import main
    from clip_eval.datasets import quick as module
    from clip_eval.selection import select

    def copy(folder: Path) -> Path:
        return Path(shutil.copytree(quick, folder))

    monkeypatch.setattr(module, "build_quick", copy)
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    assert main(["build", "quick", "--output", str(tmp_path / "data")]) == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "data" / name) for name in QUICK_SETS]
    # Where they are not on this machine, asking for them writes them.
    found = select(["quick"])
    assert [(one.name, open_dataset(one.address).name) for one in found] == [(name, name) for name in QUICK_SETS]
    assert Path(found[0].address).parent == tmp_path / "home" / "clip-eval" / "quick-1"
    # Where --data has them, those are taken.
    assert [Path(one.address).parent for one in select(["digit_pages"], root=str(tmp_path / "data"))] == [
        tmp_path / "data"
    ]
