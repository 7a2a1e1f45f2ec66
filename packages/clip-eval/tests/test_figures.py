"""The pictures for a model card: there for what there are numbers for, of one width, the same for the same numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from clip_core.errors import StorageError
from clip_eval.figures import draw_figures
from clip_eval.training_log import read_training, zero_shot_curves
from report_cases import MODELS, Writer

CLASSES = ("cat", "dog", "owl with $5 in its beak")


@pytest.fixture
def records(tmp_path: Path) -> Path:
    for place, model in enumerate(MODELS[:2]):
        writer = Writer(tmp_path / "results", model, skill=0.05 * place)
        for name, value in (("imagenet1k", 0.6), ("imagenet-r", 0.7)):
            writer.classification(name, CLASSES, value, 300, pictures=False)
        writer.retrieval()
    return tmp_path / "results"


def run_folder(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    steps = [{"step": step, "loss": 5 / step} for step in range(1, 30)]
    for step in steps[9::10]:
        step["digits/zero_shot_acc1"] = 1 - step["loss"]
    steps[3]["loss"] = None
    steps.insert(20, {"step": 20, "scenes/acc1": 0.4, "scenes/acc1_low": 0.3, "evaluation_seconds": 1.5})
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(step)}\n" for step in steps))
    return folder


def test_what_is_drawn(records: Path, tmp_path: Path) -> None:
    drawn = draw_figures(records, tmp_path / "first", training=run_folder(tmp_path / "run"))
    names = [path.name for path in drawn]
    assert names == [
        "results.png",
        "scores-1-imagenet-r-zero_shot_classification.png",
        "scores-2-imagenet1k-zero_shot_classification.png",
        "scores-3-mscoco_captions-retrieval.png",
        "reliability.png",
        "robustness.png",
        "loss.png",
        "zero_shot.png",
    ]
    for path in drawn:
        with Image.open(path) as picture:
            assert picture.width == 1050
            assert 300 < picture.height < 2000
            colours = picture.convert("RGB").getcolors(1 << 20)
            assert colours is not None
            assert len(colours) > 50  # something was drawn
    again = draw_figures(records, tmp_path / "second", training=tmp_path / "run")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in drawn]


def test_only_what_there_are_numbers_for(tmp_path: Path) -> None:
    Writer(tmp_path / "results").multilabel()
    Writer(tmp_path / "results").captioning()  # its scores are no shares
    drawn = draw_figures(tmp_path / "results", tmp_path / "figures")
    assert [path.name for path in drawn] == [
        "results.png",
        "scores-1-voc2007_multilabel-zero_shot_classification.png",
    ]


def test_a_folder_that_cannot_be_written(records: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        draw_figures(records, tmp_path / "file")


def test_zero_shot_curves(tmp_path: Path) -> None:
    curves = zero_shot_curves(read_training(run_folder(tmp_path / "run")))
    assert list(curves) == ["digits/zero_shot_acc1", "scenes/acc1"]
    assert curves["scenes/acc1"] == [(20, 0.4)]
    assert len(read_training(tmp_path / "run").steps) == 29
    assert [step for step, _ in curves["digits/zero_shot_acc1"]] == [10, 20]
    assert curves["digits/zero_shot_acc1"][0][1] == pytest.approx(0.5)
