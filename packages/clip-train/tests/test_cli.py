from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import clip_core
from clip_train import TrainConfig
from clip_train.cli import main


@pytest.fixture
def words(shards: str, tmp_path: Path) -> list[str]:
    return [
        "--train-data", shards, "--model", "tiny", "--batch-size", "8", "--epochs", "1", "--warmup", "2",
        "--workers", "0", "--device", "cpu", "--precision", "fp32", "--logs", str(tmp_path / "logs"),
    ]  # fmt: skip


def test_a_run_says_on_stdout_where_everything_is(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--name", "mine"]) == 0
    out, err = capsys.readouterr()
    folder = tmp_path / "logs" / "mine"
    lines = out.splitlines()
    assert lines[:2] == [f"run {folder}", f"bundle {folder}/bundle"]
    assert "5 steps and 40 samples" in lines[2]
    assert "skipped 0 samples" in lines[2]
    assert "step 5 of 5" in err
    assert clip_core.load(folder / "bundle").config == clip_core.get_config("tiny")


def test_the_bar_shows_loss_speed_and_time_left(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--progress"]) == 0
    bar = capsys.readouterr().err
    assert "loss " in bar
    assert "samples/s" in bar
    assert "40.0/40.0" in bar


def test_no_bar_where_stderr_is_no_terminal(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert "|" not in capsys.readouterr().err


def test_two_runs_without_a_name_have_two_folders(words: list[str], tmp_path: Path) -> None:
    assert (main(words), main(words)) == (0, 0)
    assert len(list((tmp_path / "logs").iterdir())) == 2


def test_show_prints_the_resolved_configuration_and_writes_nothing(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", *words, "--lr", "0.25"]) == 0
    config = TrainConfig.from_json(json.loads(capsys.readouterr().out))
    assert (config.optim.lr, config.optim.beta2) == (0.25, 0.98)
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--batchsize", "3"], "Unknown flag --batchsize. Did you mean --batch-size"),
        (["--aug-cfg", "scal=(0.5,1)"], "no key 'scal'. Did you mean scale?"),
        (["--model", "ViT-B-23"], "Did you mean ViT-B-32"),
        (["--train-data", "gone.tar"], "gone.tar: no such file"),
        (["--train-data", "gone/*.tar"], "no file matches"),
        (["--train-data", __file__, "--dataset-type", "webdataset"], "test_cli.py: not a readable tar"),
        (["--horovod"], "--horovod: torch's own engine"),
        (["--device", "cuda:77"], "CUDA devices here"),
        (["--logs", "None"], "logs"),
    ],
)
def test_a_users_mistake_is_one_message_and_exit_code_2(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert main([*words, *more]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert err.startswith("clip-train: error: ") or "\nclip-train: error: " in err
    assert "Traceback" not in err
    assert out == ""
    assert not (tmp_path / "logs").exists()


def test_a_run_folder_in_use_is_a_users_mistake(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--name", "mine"]) == 0
    assert main([*words, "--name", "mine"]) == 2
    assert "already holds a run, which is never overwritten" in capsys.readouterr().err


def test_half_an_environment_of_a_launcher_is_a_users_mistake(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert main(words) == 2
    assert "WORLD_SIZE=4 and no RANK" in capsys.readouterr().err


def test_no_flags_at_all_show_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    err = capsys.readouterr().err
    assert "--train-data" in err
    assert "error: train_data is missing" in err


def test_an_interrupt_leaves_valid_metrics_and_says_so(words: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "clip_train", *words, "--epochs", "2000", "--workers", "1", "--name", "mine"]
    # A shell without job control starts what it puts into the background with interrupts ignored, which is inherited.
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    metrics = tmp_path / "logs" / "mine" / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_text(encoding="utf-8").count("\n") > 2):
        time.sleep(0.05)
    # As a terminal does: to the whole process group, workers included.
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    assert "Traceback" not in err
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    assert f"SIGINT stopped the run after {len(lines)} of 10000 steps, saved as" in err
    assert "--resume latest goes on" in err
    assert not (metrics.parent / "bundle").exists()
    assert json.loads((metrics.parent / "summary.json").read_text(encoding="utf-8"))["steps"] == len(lines)
