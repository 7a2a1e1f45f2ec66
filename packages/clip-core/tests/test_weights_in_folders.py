"""A file of weights in a folder that states its model is read with that; one by itself is taken at its name's word.

These cover `folder_of` in clip_core.storage and `is_of_folder` in clip_core.convert.reading.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

import clip_core
from clip_core.building import build
from clip_core.bundle import Bundle
from clip_core.config import HfTokenizerConfig
from clip_core.errors import CheckpointMismatch
from clip_core.storage import folder_of
from clip_core.tokenizer import build_tokenizer

ARCHITECTURE = "ViT-S-32-alt"
FILES = {"bundle": "model.safetensors", "open_clip": "open_clip_model.safetensors", "transformers": "model.safetensors"}


def written(layout: str, folder: Path, name: str = ARCHITECTURE) -> Path:
    """The weights of a small model of GELU, in a folder of `layout`."""
    torch.manual_seed(0)
    bundle = clip_core.create(name)
    if layout == "bundle":
        clip_core.save(bundle, folder)
    else:
        clip_core.export(bundle, folder, layout)  # type: ignore[arg-type]
    return folder / FILES[layout]


@pytest.mark.parametrize("layout", FILES)
def test_a_file_in_a_folder_is_compared_as_the_folder_is(tmp_path: Path, layout: str) -> None:
    file = written(layout, tmp_path / "folder")
    with pytest.raises(CheckpointMismatch, match=r"image.activation is 'gelu' there, 'quick_gelu' asked") as refused:
        clip_core.create_model(f"{ARCHITECTURE}-quickgelu", pretrained=file)
    assert f"Its architecture is {ARCHITECTURE!r}" in str(refused.value)
    assert str(file) in str(refused.value)
    by_folder, by_file = clip_core.load(file.parent), clip_core.load(file)
    assert by_file.config == by_folder.config
    named = clip_core.create_model(ARCHITECTURE, pretrained=file).state_dict()
    for key, value in by_folder.model.state_dict().items():
        assert torch.equal(by_file.model.state_dict()[key], value), key
        assert torch.equal(named[key], value), key


def test_a_file_brings_the_vocabulary_beside_it(tmp_path: Path) -> None:
    tiny = clip_core.get_config("tiny")
    vocabulary = HfTokenizerConfig(context_length=tiny.text.context_length, source="org/words", clean="none", pad_id=0)
    config = dataclasses.replace(tiny, tokenizer=vocabulary)
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "a": 1, "dog": 2}, unk_token="[PAD]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "words").mkdir()
    words.save(str(tmp_path / "words" / "tokenizer.json"))
    tokenizer = build_tokenizer(vocabulary, tmp_path / "words")
    clip_core.save(dataclasses.replace(Bundle.of(build(config)), tokenizer=tokenizer), tmp_path / "b")
    loaded = clip_core.load(tmp_path / "b" / "model.safetensors")
    assert loaded.tokenizer(["a dog"])[0, :2].tolist() == [1, 2]


def test_the_file_that_is_named_is_the_one_that_is_read(tmp_path: Path) -> None:
    file = written("open_clip", tmp_path / "folder")
    other = {key: torch.zeros_like(value) for key, value in clip_core.create_model(ARCHITECTURE).state_dict().items()}
    torch.save(other, file.parent / "open_clip_pytorch_model.bin")
    bundle = clip_core.load(file.parent / "open_clip_pytorch_model.bin")
    assert not bundle.model.state_dict()["text_projection"].any()
    assert clip_core.load(file.parent).model.state_dict()["text_projection"].any()


def test_a_folder_of_two_layouts_knows_whose_a_file_is(tmp_path: Path) -> None:
    """As on the Hub: OpenCLIP's file and transformers' beside each other, with a configuration each."""
    ours = written("open_clip", tmp_path / "folder")
    theirs = written("transformers", tmp_path / "other")
    for path in theirs.parent.iterdir():
        shutil.copyfile(path, ours.parent / path.name)
    for name in ("open_clip_model.safetensors", "model.safetensors"):
        assert clip_core.load(ours.parent / name).config.image.activation == "gelu"


def test_what_lies_beside_a_file_by_chance_says_nothing_of_it(tmp_path: Path) -> None:
    file = written("bundle", tmp_path / "b")
    lone = tmp_path / "lone"
    lone.mkdir()
    for name in ("epoch_1.safetensors", "model.safetensors", "epoch_2.safetensors"):
        shutil.copyfile(file, lone / name)
    for content in ("{}", "[]", "no JSON", json.dumps({"model_type": "bert"})):
        (lone / "config.json").write_text(content)
        assert folder_of(lone / "model.safetensors") is None
    shutil.copyfile(file.parent / "clip_config.json", lone / "clip_config.json")
    assert folder_of(lone / "epoch_1.safetensors") is None
    assert folder_of(lone / "model.safetensors") == folder_of(lone) == lone
    assert folder_of(tmp_path / "none.safetensors") is None


def test_a_file_of_weights_alone_warns_once_of_the_activation_that_is_assumed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    file = tmp_path / "weights.pt"
    # The sizes do not fit, and are not what this is about: a full ViT-B-32 would be slow to make.
    torch.save(clip_core.create_model("tiny").state_dict(), file)
    with caplog.at_level(logging.WARNING, "clip_core"):
        for name in ("ViT-B-32-quickgelu", "ViT-B-32", "ViT-B-32"):
            clip_core.create_model(name, pretrained=file, device="meta")
        clip_core.create_model("tiny", pretrained=file)
    [message] = [record.getMessage() for record in caplog.records]
    assert str(file) in message
    assert "GELU is assumed" in message
    assert "'ViT-B-32-quickgelu'" in message
