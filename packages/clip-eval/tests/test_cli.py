"""The command line: what it prints where, which files it leaves, and how it answers a mistake."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import clip_core
from clip_eval.cli import main


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(3)
    return clip_core.save(clip_core.create("tiny"), tmp_path_factory.mktemp("model") / "bundle")


def test_from_nothing_to_a_report(model: Path, tmp_path: Path, capsys) -> None:
    data, results, page = tmp_path / "data", tmp_path / "results", tmp_path / "report.html"
    assert main(["build", "digits", "--output", str(data), "--train-samples", "20"]) == 0
    out, err = capsys.readouterr()
    assert out.split() == [str(data / name) for name in ("train", "digits", "digit_scenes")]
    assert "training pictures" in err
    sets = [str(data / "digits"), str(data / "digit_scenes")]
    assert main(["run", *sets, "--model", str(model), "--output", str(results), "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for words in ("digits (zero shot classification)", "acc1", "95 % interval", "image_retrieval_recall@10", "360"):
        assert words in out
    paths = [Path(line.removeprefix("record: ")) for line in out.splitlines() if line.startswith("record: ")]
    assert len(paths) == 2
    record = json.loads(paths[0].read_text())
    acc1 = record["metrics"]["acc1"]
    assert record["model"]["name"] == f"{model.parent.name}/bundle"
    assert f"acc1                   {acc1['value']:.4f}" in out
    assert main(["report", "--results", str(results), "--output", str(page), "--quiet"]) == 0
    assert capsys.readouterr().out.strip() == str(page)
    assert page.stat().st_size > 10_000


def test_progress_goes_to_stderr(model: Path, digits: Path, tmp_path: Path, capsys) -> None:
    assert (
        main(["run", str(digits / "digits"), "--model", str(model), "--output", str(tmp_path), "--workers", "0"]) == 0
    )
    out, err = capsys.readouterr()
    assert "images" in err
    assert "%|" not in out


def test_dry_run_reads_but_writes_nothing(digits: Path, tmp_path: Path, capsys) -> None:
    sets = [str(digits / "digits"), str(digits / "digit_scenes")]
    assert main(["run", *sets, "--model", "unused", "--output", str(tmp_path / "out"), "--dry-run"]) == 0
    out = capsys.readouterr().out
    lines = [re.sub(" +", " ", line) for line in out.splitlines()]
    assert lines[1].startswith("digits classification 360 10 classes, 6 prompts each 0.9 MB - ")
    assert lines[2].startswith("digit_scenes retrieval 200 200 captions 0.5 MB - ")
    assert "unused: no folder here" in lines[3]
    assert not (tmp_path / "out").exists()


def test_left_out_images_and_ties_are_in_the_table(
    model: Path, make_classification, tmp_path: Path, capsys, png
) -> None:
    folder = make_classification(["0", "1", "0"], classnames="cat\ncat\n", images=[png(0), b"broken", png(2)])
    arguments = ["run", str(folder), "--model", str(model), "--output", str(tmp_path / "out"), "--quiet"]
    assert main(arguments) == 2
    assert "allow duplicate class names" in capsys.readouterr().err
    assert main([*arguments, "--allow-duplicate-classes"]) == 0
    out = capsys.readouterr().out
    assert "1 of 3 images left out: they do not decode" in out
    assert "ties: 100.0% of the acc1 queries" in out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "nowhere"}, "nowhere: no such data set folder"),
        ({"--model": "ViT-Z-99"}, "ViT-Z-99"),
        ({"--device": "toaster"}, "device is 'toaster'; allowed: auto, cpu"),
        ({"--batch-size": "0"}, "batch_size=0"),
    ],
)
def test_mistakes_give_one_line_and_exit_code_2(
    model: Path, digits: Path, tmp_path: Path, capsys, change: dict[str, str], message: str
) -> None:
    options = {"--model": str(model), "--output": str(tmp_path / "out"), **change}
    dataset = options.pop("dataset", str(digits / "digits"))
    code = main(["run", dataset, *[word for pair in options.items() for word in pair], "--quiet"])
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.startswith("clip-eval: error: ")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_without_cuda(model: Path, digits: Path, tmp_path: Path, capsys) -> None:
    arguments = ["run", str(digits / "digits"), "--model", str(model), "--output", str(tmp_path)]
    assert main([*arguments, "--device", "cuda"]) == 2
    assert "device is 'cuda', but torch sees 0 CUDA devices here" in capsys.readouterr().err


def test_two_sets_of_one_name(model: Path, digits: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "animals").mkdir()
    (tmp_path / "animals").mkdir()
    words = [str(tmp_path / "animals"), str(tmp_path / "deep" / "animals")]
    assert main(["run", *words, "--model", str(model), "--output", str(tmp_path)]) == 2
    assert "share the name 'animals'" in capsys.readouterr().err


def test_building_into_an_occupied_folder(digits: Path, capsys) -> None:
    assert main(["build", "digits", "--output", str(digits)]) == 2
    assert "already exists" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["build"], ["build", "digits"], ["run"], ["report"]])
def test_every_command_has_help(words: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    assert stop.value.code == 0
    assert "usage: clip-eval" in capsys.readouterr().out


def test_python_m_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "clip_eval", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("clip-eval ")
    done = subprocess.run([sys.executable, "-m", "clip_eval"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage" in done.stderr


def test_an_output_that_cannot_be_written_is_found_before_the_evaluation(tmp_path, capsys, monkeypatch) -> None:
    from clip_eval.datasets.digits import build_digits

    data = build_digits(tmp_path / "data", train_samples=1)
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setattr("clip_hub.load", lambda *_, **__: pytest.fail("the model was loaded first"))
    arguments = ["run", str(data / "digits"), "--model", "tiny", "--output", str(tmp_path / "taken")]
    assert main(arguments) == 2
    assert "taken cannot be written" in capsys.readouterr().err


def test_dry_run_names_every_question_of_a_set_and_counts_its_images_once(
    model: Path, tmp_path, capsys, make_people
) -> None:
    folder = make_people()
    assert main(["run", str(folder), "--model", str(model), "--output", str(tmp_path / "out"), "--dry-run"]) == 0
    lines = [re.sub(" +", " ", line) for line in capsys.readouterr().out.splitlines()]
    assert lines[1].startswith("people (hat) classification 6 2 classes, 1 prompts each ")
    assert lines[2] == "people (age) classification 6 3 classes, 1 prompts each"
    assert "of 6 images on this machine" in lines[3]


def test_dry_run_names_the_splits_that_a_probe_learns_from(
    model: Path, digits: Path, tmp_path, capsys, make_people
) -> None:
    """Described by `clip_eval.commands.dry_run`."""
    sets = [str(make_people(test=6, train=24, small=12)), str(digits / "digit_scenes")]
    words = ["run", *sets, "--model", str(model), "--output", str(tmp_path / "out"), "--dry-run"]
    probe = ["--task", "linear_probe", "retrieval", "--validation-split", "small"]
    assert main([*words, *probe]) == 0
    lines = [re.sub(" +", " ", line) for line in capsys.readouterr().out.splitlines()]
    assert [line.split(" classification")[0] for line in lines[1:5]] == [
        "people (hat)",
        "people (age)",
        "people, train",
        "people, small",
    ]
    assert lines[3].startswith("people, train classification 24 for the linear probe 0.")
    # A retrieval set has no probe, and its train split, which is not there, is not looked for.
    assert lines[5].startswith("digit_scenes retrieval 200 ")
    assert "of 242 images on this machine" in lines[6]
    assert main([*words, *probe, "--train-split", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
