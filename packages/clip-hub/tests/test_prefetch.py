"""What was downloaded by its name loads with the network off, and names that cannot be fetched say why."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

import clip_core
import clip_hub
from clip_core.building import build
from clip_core.config import HfTokenizerConfig
from clip_core.errors import ConfigError
from clip_hub import DownloadError
from clip_hub.prefetch import fetch_named

WORDS = {"type": "WordLevel", "vocab": {"<pad>": 0, "[UNK]": 1, "dogs": 2}, "unk_token": "[UNK]"}
VOCABULARY = {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}, "model": WORDS}


@pytest.fixture
def bundle(hub) -> clip_core.Bundle:
    """A tiny model whose vocabulary is in the repository someone/words."""
    hub.files["someone/words", "tokenizer.json"] = json.dumps(VOCABULARY).encode()
    config = clip_core.get_config("tiny")
    words = HfTokenizerConfig(context_length=32, source="someone/words", clean="whitespace", pad_id=0)
    return clip_core.Bundle.of(build(dataclasses.replace(config, tokenizer=words)))


def publish(hub, bundle: clip_core.Bundle, repo: str, folder: Path) -> None:
    for path in clip_core.save(bundle, folder).iterdir():
        hub.files[repo, path.name] = path.read_bytes()


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_a_repository_comes_whole_with_the_vocabulary_of_another(hub, bundle, tmp_path, monkeypatch) -> None:
    publish(hub, bundle, "someone/model", tmp_path / "out")
    hub.repositories["someone/model"].refs["v1"] = hub.repositories["someone/model"].refs["main"]
    hub.repositories["someone/model"].private = True
    with pytest.raises(DownloadError, match="or it is private"):
        fetch_named("someone/model")
    folder = fetch_named("someone/model", revision="v1", token=hub.token)
    assert (folder / "model.safetensors").is_file()
    assert fetch_named("hf-hub:someone/model@v1", token=hub.token) == folder
    go_offline(monkeypatch)
    loaded = clip_hub.load("someone/model", revision="v1")
    assert loaded.tokenizer(["dogs"])[0, 0] == 2
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE forbids the network"):
        clip_hub.load("someone/model", revision="v2")


def test_a_tag_comes_with_its_vocabulary_and_in_the_revision_that_was_asked_for(hub, bundle, monkeypatch) -> None:
    row = clip_hub.find_name("ViT-B-16-SigLIP:webli")
    monkeypatch.setattr(clip_hub.Tag, "config", lambda _: bundle.config)
    hub.files[row.repo, "open_clip_model.safetensors"] = save(bundle.model.state_dict())
    hub.repositories[row.repo].refs["old"] = hub.repositories[row.repo].refs["main"]
    changed = {
        key: value + 1 if value.is_floating_point() else value for key, value in bundle.model.state_dict().items()
    }
    hub.files[row.repo, "open_clip_model.safetensors"] = save(changed)
    for revision, expected in (("old", bundle.model.state_dict()), (None, changed)):
        path = fetch_named(row.name, revision=revision)
        assert path.read_bytes() == save(expected)
    go_offline(monkeypatch)
    for revision, expected in (("old", bundle.model.state_dict()), (None, changed)):
        for loaded in (
            clip_hub.load(row.name, revision=revision),
            clip_hub.create(row.model, row.tag, revision=revision),
        ):
            assert torch.equal(loaded.model.text_projection, expected["text_projection"])
            assert loaded.tokenizer(["dogs"])[0, 0] == 2


def test_a_repository_that_states_no_model_is_read_as_its_row_says(hub, bundle, monkeypatch) -> None:
    from io import BytesIO

    row = clip_hub.find_name("ViTamin-S:datacomp1b")
    monkeypatch.setattr(clip_hub.Tag, "config", lambda _: bundle.config)
    stream = BytesIO()
    torch.save(bundle.model.state_dict(), stream)
    hub.files[row.repo, "pytorch_model.bin"] = stream.getvalue()
    hub.files[row.repo, "config.json"] = b'{"model_type": "vitamin"}'
    assert fetch_named(row.repo).name == "pytorch_model.bin"
    assert torch.equal(clip_hub.load(row.repo).model.text_projection, bundle.model.text_projection)


def test_addresses_are_fetched_by_their_hash(hub, bundle) -> None:
    weights = save(bundle.model.state_dict())
    hub.files["a/b", "w.safetensors"] = weights
    address = f"{hub.url}/a/b/resolve/main/w.safetensors#sha256={hashlib.sha256(weights).hexdigest()}"
    assert fetch_named(f"tiny:{address}").read_bytes() == weights
    with pytest.raises(ConfigError, match="does not say its architecture"):
        fetch_named(address)
    with pytest.raises(ConfigError, match="is an address, which has no revisions"):
        fetch_named(f"tiny:{address}", revision="v1")


def test_a_revision_is_refused_where_there_is_no_repository(tmp_path) -> None:
    folder = clip_core.save(clip_core.create("tiny"), tmp_path / "b")
    with pytest.raises(ConfigError, match="revision='v1' is for repositories of the Hub, and .*b is not in one"):
        clip_hub.load(folder, revision="v1")
    with pytest.raises(ConfigError, match="and .*model.safetensors is not in one"):
        clip_hub.create_model("tiny", folder / "model.safetensors", revision="v1")
    with pytest.raises(ConfigError, match="and fresh weights is not in one"):
        clip_hub.create("tiny", revision="v1")
