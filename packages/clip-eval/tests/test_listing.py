"""What `clip-eval list` and `clip-eval show` print (`clip_eval.catalogue.listing`, `clip_eval.commands.catalogue`)."""

from __future__ import annotations

import argparse
import json

import pytest

from clip_core.errors import ConfigError
from clip_eval.catalogue import entries, find
from clip_eval.catalogue.listing import card, matching, table
from clip_eval.commands import catalogue
from clip_eval.suites import SUITES


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    parser = argparse.ArgumentParser()
    catalogue.add(parser.add_subparsers())
    options = parser.parse_args(arguments)
    options.action(options)
    return capsys.readouterr().out


def test_every_row_has_its_line_and_its_card() -> None:
    lines = table(entries())
    assert len(lines) == len(entries()) + 2
    for entry, line in zip(entries(), lines[2:], strict=True):
        assert line.startswith(f"{entry.name} ")
        text = card(entry)
        assert text.startswith(f"{entry.title}\n=")
        assert max(map(len, text.splitlines())) <= 100
        assert all(note.split()[0] in text for note in entry.notes)


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{len(entries())} data sets." in run(capsys, "list")
    found = run(capsys, "list", "--suite", "vtab")
    assert "19 data sets." in found
    assert "imagenet" not in found.partition("data sets")[0]
    found = run(capsys, "list", "--filter", "caption_choice swap")
    assert [line.split()[0] for line in found.splitlines()[2:4]] == ["sugar_crepe/swap_att", "sugar_crepe/swap_obj"]


def test_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run(capsys, "list", "--json"))
    assert [row["name"] for row in found] == [entry.name for entry in entries()]
    first = found[0]
    assert (first["name"], first["test"], first["hub"]) == ("imagenet1k", 50_000, "clip-benchmark/wds_imagenet1k")
    assert first["prompt_languages"] == ["en", "it", "jp", "cn", "ar"]


def test_suites(capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys, "list", "--suites").splitlines()
    assert [line.split()[0] for line in lines] == list(SUITES)
    assert set(json.loads(run(capsys, "list", "--suites", "--json"))) == set(SUITES)


def test_show(capsys: pytest.CaptureFixture[str]) -> None:
    found = run(capsys, "show", "wds_vtab-caltech101")
    for text in ("vtab/caltech101", "6,085 images", "mean_per_class_recall, 0.0098 by guessing", "34 templates"):
        assert text in found
    assert "118 sets of weights" in found
    assert json.loads(run(capsys, "show", "fmow", "--json"))["groups"]["fields"] == ["region", "year", "y"]


def test_show_a_suite(capsys: pytest.CaptureFixture[str]) -> None:
    found = run(capsys, "show", "datacomp")
    assert "Average: the plain mean of 38" in found
    assert "wilds/camelyon17" in found
    assert len(json.loads(run(capsys, "show", "datacomp", "--json"))["aggregates"]["VTAB"]) == 13


def test_nothing_matches() -> None:
    with pytest.raises(ConfigError, match="No data set matches 'zebra'"):
        matching("zebra")
    assert matching("CIFAR-10") == [find("cifar10"), find("cifar100")]
