"""Names of the command line mean a row or a repository, or an error says what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from clip_core.errors import ConfigError, UnknownModel
from clip_hub.names import only_row_of, resolve
from clip_hub.registry import find_name
from clip_hub.repository import RepositoryName


def test_a_name_is_a_row_or_a_repository() -> None:
    assert resolve("ViT-B/32:openai") is find_name("ViT-B-32:openai")
    assert resolve("ViT-B-32:openai", "refs/pr/2").revision == "refs/pr/2"
    for name in ("timm/ViT-B-16-SigLIP", "hf-hub:timm/ViT-B-16-SigLIP", "timm/ViT-B-16-SigLIP@main"):
        assert resolve(name) == RepositoryName("timm/ViT-B-16-SigLIP", "main")
    assert resolve("a/b", "v1") == resolve("a/b@v1") == resolve("hf-hub:a/b@v1", "v1") == RepositoryName("a/b", "v1")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("laion2b_s34b", UnknownModel, "Did you mean ViT-B-32:laion2b_s34b_b79k, "),
        ("siglip", UnknownModel, "Did you mean ViT-B-16-SigLIP, .* Write MODEL:TAG"),
        ("zzzzzz", UnknownModel, "'zzzzzz' is no model. Write MODEL:TAG .* or a repository as in timm/"),
        ("ViT-B-32:opnai", UnknownModel, "Did you mean openai"),
        ("hf-hub:a", ConfigError, "'a' is no Hub repository; write org/name"),
        ("a/b@c", ConfigError, "names a revision and revision='main' another one"),
    ],
)
def test_other_names_are_refused_with_what_was_meant(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        resolve(name, "main")


def test_what_is_on_this_disk_is_told_from_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "x").mkdir(parents=True)
    with pytest.raises(ConfigError, match="'runs/x' is a file or a folder here.* Write hf-hub:runs/x for the"):
        resolve("runs/x")
    assert resolve("hf-hub:runs/x") == RepositoryName("runs/x")


def test_a_repository_that_does_not_state_its_model_is_described_by_its_row() -> None:
    row = only_row_of(RepositoryName("jienengchen/ViTamin-S", "v2"))
    assert row is not None
    assert (row.name, row.revision) == ("ViTamin-S:datacomp1b", "v2")
    assert only_row_of(RepositoryName("timm/ViT-B-16-SigLIP")) is None
    assert only_row_of(RepositoryName("some/body")) is None
