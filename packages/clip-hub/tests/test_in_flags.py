"""On the command line errors name flags, and no argument of Python."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import clip_core
from clip_hub.cli import main
from clip_hub.in_flags import in_flags

PYTHON = re.compile(r"\b[a-z_]+=(True|False|None|')|clip_(core|hub)\.\w+|cache_dir")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a bundle, and files of weights with and without their moving average."""
    monkeypatch.chdir(tmp_path)
    model = clip_core.create("tiny")
    clip_core.save(model, "a")
    state = model.model.state_dict()
    torch.save({"state_dict": state}, "plain.pt")
    torch.save({"state_dict": state, "state_dict_ema": state}, "both.pt")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("convert a a --to bundle", "pass --overwrite to replace a bundle"),
        ("convert tiny:both.pt b --to bundle", "pass --ema for the average or --no-ema for the others"),
        ("convert tiny:plain.pt b --to bundle --ema", "allowed: --no-ema"),
        ("verify tiny:both.pt", "take one of them out first: clip-hub convert"),
        ("show ViT-B-33:x", "`clip-hub list` shows those with weights"),
        ("show ViT-B-32:x", "`clip-hub list --filter ViT-B-32:` lists all"),
        ("show ViT-B-32", "`clip-hub list` shows every pair"),
        ("show nope", "`clip-hub list` shows every pair"),
        ("show a/b@c --revision d", "and --revision 'd' another one"),
        ("diff plain.pt a", "write the name of the model in front"),
        ("push plain.pt x/y --dry-run", "--model NAME"),
    ],
)
def test_mistakes_are_told_in_flags(
    place: Path, capsys: pytest.CaptureFixture[str], command: str, message: str
) -> None:
    code = main(command.split())
    captured = capsys.readouterr()
    told = captured.err + captured.out
    assert code in (1, 2)
    assert message in told
    assert not PYTHON.search(told), told


def test_downloads_name_the_flags_that_the_command_has(hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", "someone/nothing"]) == 2
    assert "or log in with `hf auth login`, or pass --token" in capsys.readouterr().err
    assert main(["verify", "someone/nothing"]) == 2
    assert "or log in with `hf auth login`, or set HF_TOKEN" in capsys.readouterr().err
    hub.cache.parent.mkdir(parents=True, exist_ok=True)
    hub.cache.write_text("a file where the cache should be")
    hub.files["someone/model", "clip_config.json"] = b"{}"
    assert main(["download", "someone/model"]) == 2
    assert "change that, or pass another --cache-dir" in capsys.readouterr().err


def test_what_speaks_of_no_argument_stays() -> None:
    assert in_flags("the schema=1 of a.json, overwrite", ["overwrite"]) == "the schema=1 of a.json, overwrite"
