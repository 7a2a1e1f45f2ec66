"""Keyword arguments of `clip_core.creation`; how it finds folders and files is tested in test_bundle.py."""

from __future__ import annotations

from pathlib import Path

import pytest

import clip_core
from clip_core.errors import ConfigError, UnknownModel


def test_a_tokenizer_may_have_another_context_than_its_model() -> None:
    assert clip_core.get_tokenizer("ViT-B-32", context_length=16)("a dog").shape == (1, 16)
    assert clip_core.get_tokenizer("ViT-B-32")("a dog").shape == (1, 77)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("tiny", {"image_size": 7}, "image_size is 7; allowed: sides of at least one patch"),
        ("tiny", {"image_size": "32"}, r"image_size is '32' \(str\)"),
        ("RN50", {"image_size": 225}, "image_size is 225; allowed: a multiple of 32"),
        ("tiny", {"context_length": 2}, "context_length is 2; allowed: 3 or more"),
    ],
)
def test_what_is_wrong_with_an_argument_is_said_by_its_name(name: str, arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        clip_core.create_model(name, **arguments)
    if "context_length" in arguments:
        with pytest.raises(ConfigError, match=f"^{message}"):
            clip_core.get_tokenizer(name, **arguments)


@pytest.mark.parametrize("call", [clip_core.create, clip_core.create_model, clip_core.get_tokenizer])
def test_a_path_in_the_place_of_a_name_is_pointed_elsewhere(call) -> None:
    with pytest.raises(UnknownModel, match=r"clip_core.load\('openai/clip-vit-base-patch32'\).*clip-hub"):
        call("openai/clip-vit-base-patch32")
    with pytest.raises(UnknownModel) as refused:
        call("ViT-B-33")
    assert "clip_core.load" not in str(refused.value)


def test_an_empty_path_is_not_the_working_folder() -> None:
    with pytest.raises(ConfigError, match="The path is empty"):
        clip_core.load("")


def test_an_image_tower_of_timm_is_pointed_to_what_reads_it(tmp_path: Path) -> None:
    clip_core.export(clip_core.create("ViT-S-32-alt"), tmp_path / "timm", "timm")
    for path in (tmp_path / "timm", tmp_path / "timm" / "model.safetensors"):
        with pytest.raises(ConfigError, match=r"timm's vit_\w+, an image tower .* clip_core.load_image_tower\("):
            clip_core.load(path)
