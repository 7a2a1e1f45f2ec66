"""The subcommands that work on weights, as a user gives them."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import clip_core
import clip_hub
from clip_hub.cli import main
from fine_tunes import fine_tunes


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[str]:
    return [str(run) for run in fine_tunes(tmp_path_factory.mktemp("runs"))]


def matrix(folder: str | Path) -> torch.Tensor:
    return load_file(Path(folder) / "model.safetensors")["text_projection"]


def test_soup_prints_the_folder_and_nothing_else(runs: list[str], tmp_path: Path, capsys) -> None:
    out = str(tmp_path / "soup")
    assert main(["soup", *runs, "-o", out, "--weights", "1", "1", "2", "--dtype", "bf16"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{out}\n"
    assert captured.err == ""
    a, b, c = map(matrix, runs)
    assert torch.equal(matrix(out), ((a + b + c * 2) / 4).bfloat16())
    assert main(["soup", *runs, "-o", out]) == 2
    assert "already exists" in capsys.readouterr().err
    assert main(["soup", *runs, "-o", out, "--overwrite", "--progress"]) == 0
    assert "average" in capsys.readouterr().err


def test_greedy_says_what_was_tried(runs: list[str], tmp_path: Path, capsys) -> None:
    code = "import sys; print(1.5)"
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} {{}}"
    assert main(["soup", *runs[:2], "-o", str(tmp_path / "soup"), "--greedy", "--eval-command", command]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'soup'}\n"
    assert f"1.5\twith {runs[1]}: kept" in captured.err
    assert "the soup of 2 of 2" in captured.err


def test_interpolate_prints_each_folder(runs: list[str], tmp_path: Path, capsys) -> None:
    assert main(["interpolate", *runs[:2], "--alpha", "0.25", "0.75", "-o", str(tmp_path / "line")]) == 0
    folders = capsys.readouterr().out.split()
    assert folders == [str(tmp_path / "line" / f"alpha-{alpha}") for alpha in ("0.25", "0.75")]
    assert torch.equal(matrix(folders[0]), 0.75 * matrix(runs[0]) + 0.25 * matrix(runs[1]))


def test_ema_and_convert(runs: list[str], tmp_path: Path, capsys) -> None:
    states = [load_file(Path(run) / "model.safetensors") for run in runs]
    torch.save({"state_dict": states[0], "state_dict_ema": states[1]}, tmp_path / "last.pt")
    assert main(["ema", f"tiny:{tmp_path / 'last.pt'}", "-o", str(tmp_path / "ema")]) == 0
    assert torch.equal(matrix(tmp_path / "ema"), states[1]["text_projection"])
    for flag, state in (("--ema", states[1]), ("--no-ema", states[0])):
        out = tmp_path / flag
        assert main(["convert", f"tiny:{tmp_path / 'last.pt'}", str(out), "--to", "open_clip", flag]) == 0
        assert torch.equal(load_file(out / "open_clip_model.safetensors")["text_projection"], state["text_projection"])
    assert main(["convert", f"tiny:{tmp_path / 'last.pt'}", str(tmp_path / "x"), "--to", "bundle"]) == 2
    assert "pass --ema" in capsys.readouterr().err


def test_verify_leaves_exit_code_1_on_a_finding(runs: list[str], capsys) -> None:
    assert main(["verify", runs[0]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "ok       finite: every value is a finite number" in lines
    assert main(["verify", runs[0], "--sha256", "0" * 64, "--no-features"]) == 1
    assert capsys.readouterr().out.startswith("finding  sha256: ")
    assert main(["verify", runs[0], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    assert main(["verify", "nowhere"]) == 2


def test_diff_leaves_exit_code_1_where_they_differ(runs: list[str], capsys) -> None:
    assert main(["diff", runs[0], runs[0]]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "same      one model, one set of weights"
    assert main(["diff", *runs[:2]]) == 1
    out = capsys.readouterr().out
    assert "weights   74 of 74 tensors differ, cosine 0." in out
    assert "changed   and 64 more; --json lists all" in out
    assert main(["diff", *runs[:2], "--json", "--no-features"]) == 1
    assert len(json.loads(capsys.readouterr().out)["changed"]) == 74


def test_a_published_model_goes_in_by_its_name_and_its_cache_is_checked(
    hub, runs, tmp_path: Path, capsys, monkeypatch
) -> None:
    # The registry's architectures are large; here one of its rows stands for the small model.
    row = clip_hub.find("ViT-B-32", "laion2b_s34b_b79k")
    monkeypatch.setattr(type(row), "config", lambda _: clip_core.get_config("tiny"))
    hub.files[row.repo, "open_clip_model.safetensors"] = (Path(runs[0]) / "model.safetensors").read_bytes()
    common = ["--cache-dir", str(hub.cache)]
    out = tmp_path / "soup"
    assert main(["soup", row.name, runs[1], "-o", str(out), *common]) == 0
    assert torch.equal(matrix(out), (matrix(runs[0]) + matrix(runs[1])) / 2)
    capsys.readouterr()
    assert main(["verify", row.name, *common]) == 0
    assert "as the Hub's LFS record, in huggingface_hub's cache says" in capsys.readouterr().out
    (blob,) = hub.cache.glob("models--*/blobs/*")
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    assert main(["verify", row.name, *common]) == 1
    assert "it was thrown away and fetched again" in capsys.readouterr().out
    assert main(["verify", row.name, *common]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["soup", "a", "b", "-o", "x", "--greedy"], "--greedy and --eval-command belong together"),
        (["soup", "a", "b", "-o", "x", "--eval-command", "true {}"], "belong together"),
        (
            ["soup", "a", "b", "-o", "x", "--greedy", "--eval-command", "t {}", "--weights", "1", "2"],
            "exclude each other",
        ),
        (["soup", "a", "b", "-o", "x"], "There is no file or folder 'a'"),
        (["soup", "tiny:openai", "b", "-o", "x"], "No published weights of tiny are known"),
        (["diff", "ViT-B-32", "b"], "'ViT-B-32' names an architecture without weights"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(capsys, monkeypatch, tmp_path, arguments, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_does_not_state_its_model_says_how_to_name_it(runs: list[str], tmp_path: Path, capsys) -> None:
    torch.save(load_file(Path(runs[0]) / "model.safetensors"), tmp_path / "weights.pt")
    assert main(["verify", str(tmp_path / "weights.pt")]) == 2
    err = capsys.readouterr().err
    assert "write the name of the model in front, as in " in err
    assert f":{tmp_path / 'weights.pt'}" in err


@pytest.mark.parametrize("command", ["soup", "interpolate", "ema", "convert", "verify", "diff"])
def test_help_explains_each(command: str, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 10
