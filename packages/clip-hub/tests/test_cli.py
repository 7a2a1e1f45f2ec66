"""The command `clip-hub`."""

from __future__ import annotations

import json

import pytest

from clip_hub.cli import main
from clip_hub.registry import all_tags


def test_list_is_a_table_sorted_and_filtered_as_asked(capsys) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(all_tags())
    assert main(["list", "--filter", "siglip", "--sort", "imagenet"]) == 0
    heading, _, *lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[0] == "ViT-gopt-16-SigLIP2-384:webli"
    assert all("SigLIP" in line or "siglip" in line for line in lines)
    place = heading.index("IN-1k")
    scores = [line[place : place + 5].strip() for line in lines]
    known = [float(score) for score in scores if score != "-"]
    assert known == sorted(known, reverse=True)
    assert set(scores[len(known) :]) <= {"-"}


def test_a_person_gets_lines_that_fit_and_a_program_gets_all_of_them(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    assert main(["list"]) == 0
    whole = capsys.readouterr()
    assert max(map(len, whole.out.splitlines())) > 120
    assert whole.err == ""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert main(["list"]) == 0
    fitted = capsys.readouterr()
    assert max(map(len, fitted.out.splitlines())) <= 90
    assert f"{len(all_tags())} of {len(all_tags())} sets of weights" in fitted.err


def test_json_has_every_row(capsys) -> None:
    assert main(["list", "--json", "--sort", "params"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == len(all_tags())
    assert [row["parameters"] for row in rows] == sorted(row["parameters"] for row in rows)
    assert main(["show", "ViT-B-32:openai", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["licence"] == "mit"


def test_show_states_what_is_known_and_what_is_not(capsys) -> None:
    assert main(["show", "ViT-B-32:laion2b_s34b_b79k"]) == 0
    out = capsys.readouterr().out
    for part in ("151.28 M", "66.6 %", "34,000,000,000", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "MIT"):
        assert part in out
    assert main(["show", "ViT-B-32-quickgelu:laion400m_e31"]) == 0
    assert "not known here" in capsys.readouterr().out


def test_download_prints_where_the_verified_file_is(hub, capsys) -> None:
    hub.files["laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "open_clip_model.safetensors"] = b"weights"
    assert main(["download", "ViT-B-32:laion2b_s34b_b79k", "--cache-dir", str(hub.cache)]) == 0
    with open(capsys.readouterr().out.strip(), "rb") as stream:
        assert stream.read() == b"weights"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "ViT-B-32:opnai"], "Did you mean openai"),
        (["show", "ViT-B-32"], "'ViT-B-32' names an architecture without weights"),
        (["show", "tiny:openai"], "No published weights of tiny are known"),
        (["list", "--filter", "zzz"], "No weights match --filter 'zzz'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(capsys, arguments: list[str], message: str) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("clip-hub: error: ")
    assert message in captured.err


def test_help_names_every_command(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert all(command in out for command in ("list", "show", "download"))
