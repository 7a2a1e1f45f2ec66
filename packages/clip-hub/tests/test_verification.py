"""`verify` on checkpoints that are whole and on ones that are each broken in one way."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import clip_core
import clip_hub.sources
from clip_core.errors import ConfigError
from clip_hub.probe import run_probe
from clip_hub.tag import Tag
from clip_hub.verification import Report, verify
from fine_tunes import fine_tunes


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    (run,) = fine_tunes(tmp_path_factory.mktemp("run"), 1)
    return run


def broken(whole: Path, target: Path, **values: Tensor | None) -> Path:
    target.mkdir()
    (target / "clip_config.json").write_bytes((whole / "clip_config.json").read_bytes())
    tensors = {**load_file(whole / "model.safetensors"), **values}
    save_file({key: value for key, value in tensors.items() if value is not None}, target / "model.safetensors")
    return target


def findings(report: Report) -> list[tuple[str, str]]:
    return [(check.what, check.message) for check in report.checks if check.result == "finding"]


def test_a_whole_checkpoint_has_no_finding(whole: Path) -> None:
    report = verify(whole)
    assert report.ok
    assert findings(report) == []
    looked = ["sha256", "tensors", "finite", "zeros", "scale", "image features", "text features", "fingerprint"]
    assert [check.what for check in report.checks] == looked
    shown = " ".join(f"{value:.4f}" for value in run_probe(clip_core.load(whole)).fingerprint())
    assert report.checks[-1].message.startswith(shown)
    assert report.to_json()["ok"] is True
    assert len(verify(whole, features=False).checks) == 5


def test_a_stated_hash_is_compared(whole: Path) -> None:
    digest = hashlib.sha256((whole / "model.safetensors").read_bytes()).hexdigest()
    good = verify(whole, sha256=digest.upper(), features=False)
    assert good.ok
    assert good.checks[0].result == "ok"
    found = findings(verify(whole, sha256="0" * 64, features=False))
    assert found == [("sha256", f"model.safetensors has {digest}; what was asked for says {'0' * 64}")]


@pytest.mark.parametrize(
    ("name", "value", "what", "message"),
    [
        ("text_projection", None, "tensors", "missing: text_projection"),
        ("text_projection", torch.ones(96, 64), "tensors", r"text_projection is \(96, 64\), the model has \(96, 128\)"),
        ("extra", torch.ones(3), "tensors", "unexpected: extra"),
        ("text_projection", torch.full((96, 128), torch.nan), "finite", r"text_projection \(12288 of 12288\)"),
        ("ln_final.bias", torch.full((96,), -torch.inf), "finite", r"ln_final.bias \(96 of 96\)"),
        ("visual.proj", torch.zeros(96, 128), "zeros", "nothing comes through: visual.proj"),
        ("ln_final.weight", torch.zeros(96), "zeros", "ln_final.weight"),
        ("logit_scale", torch.tensor(100.0), "scale", "from 1 to 1000 can be right"),
        ("logit_scale", torch.tensor(-3.0), "scale", "0.04979, stored as its logarithm -3.0000"),
        ("logit_scale", torch.tensor(torch.nan), "scale", "nan"),
    ],
)
def test_each_kind_of_damage_is_found(whole, tmp_path: Path, name: str, value: Tensor, what: str, message: str) -> None:
    import re

    found = findings(verify(broken(whole, tmp_path / "broken", **{name: value})))
    assert what in [kind for kind, _ in found]
    assert re.search(message, dict(found)[what]), found


def test_features_that_say_nothing_are_found(whole: Path, tmp_path: Path) -> None:
    # Nothing is zero as a whole, and every picture still gives the same.
    weight = torch.zeros(96, 3, 8, 8)
    weight[0, 0, 0, 0] = 1e-30
    report = verify(broken(whole, tmp_path / "blind", **{"visual.conv1.weight": weight}))
    assert findings(report) == [("image features", "the same for different images")]


def test_zero_biases_are_worth_a_note(whole: Path, tmp_path: Path) -> None:
    report = verify(broken(whole, tmp_path / "fresh", **{"ln_final.bias": torch.zeros(96)}), features=False)
    assert report.ok
    assert [(check.what, check.message) for check in report.checks if check.result == "note"][1:] == [
        ("biases", "all zero, as before training: ln_final.bias")
    ]


def test_files_that_cannot_be_read_are_findings_and_missing_ones_mistakes(whole: Path, tmp_path: Path) -> None:
    cut = broken(whole, tmp_path / "cut")
    content = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(content[:-100])
    ((what, message),) = findings(verify(cut))
    assert what == "tensors"
    assert "damaged or cut short" in message
    (cut / "model.safetensors").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 7\n"
    )
    ((_, message),) = findings(verify(cut))
    assert message == "model.safetensors: a pointer of Git LFS instead of the weights; fetch them with `git lfs pull`"
    with pytest.raises(ConfigError, match="There is no file or folder"):
        verify(tmp_path / "nowhere")


def test_a_fingerprint_of_the_registry_is_compared(whole: Path, monkeypatch) -> None:
    fingerprint = run_probe(clip_core.load(whole)).fingerprint()
    opened = clip_hub.sources.open_source(whole)

    def result(stated: tuple[float, ...]) -> str:
        row = Tag(model="tiny", tag="x", repo="a/b", fingerprint=stated)
        source = dataclasses.replace(opened, row=row)
        monkeypatch.setattr("clip_hub.verification.open_source", lambda *_, **__: source)
        return {check.what: check.result for check in verify("any").checks}["fingerprint"]

    assert result(tuple(value + 4e-4 for value in fingerprint)) == "ok"
    assert result((fingerprint[0] + 0.01, *fingerprint[1:])) == "finding"
