"""Repositories of a Hub on this machine as models: each layout, with its tokenizer, also while the Hub is away."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

import clip_core
import clip_hub
from clip_core.building import build
from clip_core.config import ClipTokenizerConfig, HfTokenizerConfig
from clip_core.errors import ConfigError
from clip_hub import DownloadError
from clip_hub.repository import RepositoryName, fetch_model, fetch_vocabulary, is_repository

REPO = "someone/some-model"
WORDS = {"type": "WordLevel", "vocab": {"<pad>": 0, "[UNK]": 1, "two": 2, "dogs": 3, "</s>": 4}, "unk_token": "[UNK]"}
TOKENIZER = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": {"type": "Whitespace"},
    "post_processor": None,
    "decoder": None,
    "model": WORDS,
}


@pytest.fixture(scope="module")
def bundle() -> clip_core.Bundle:
    torch.manual_seed(0)
    return clip_core.create("tiny")


def publish(hub, folder: Path, repo: str = REPO) -> None:
    for path in folder.iterdir():
        hub.files[repo, path.name] = path.read_bytes()


def written(bundle: clip_core.Bundle, layout: str, folder: Path) -> Path:
    if layout == "bundle":
        return clip_core.save(bundle, folder)
    return clip_core.export(bundle, folder, layout)  # type: ignore[arg-type]


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants, utils

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    getattr(utils, "reset_sessions", lambda: None)()


@pytest.mark.parametrize("layout", ["bundle", "open_clip", "transformers"])
def test_each_layout_loads_by_the_name_of_its_repository(hub, bundle, layout, tmp_path, monkeypatch) -> None:
    publish(hub, written(bundle, layout, tmp_path / "out"))
    texts = ["a cat", "two dogs"]
    expected = bundle.model.encode_text(bundle.tokenizer(texts))
    for name in (REPO, f"hf-hub:{REPO}", f"hf-hub:{REPO}@main"):
        loaded = clip_hub.load(name, cache_dir=hub.cache)
        assert loaded.config.preprocess == bundle.config.preprocess
        features = loaded.model.encode_text(loaded.tokenizer(texts))
        torch.testing.assert_close(features, expected, atol=1e-6, rtol=1e-5)
    offline(monkeypatch)
    again = clip_hub.load(REPO, cache_dir=hub.cache)
    torch.testing.assert_close(again.model.encode_text(again.tokenizer(texts)), expected, atol=1e-6, rtol=1e-5)


def test_a_bundle_goes_before_the_other_layouts_of_a_repository(hub, bundle, tmp_path) -> None:
    for layout in ("transformers", "open_clip"):
        publish(hub, written(bundle, layout, tmp_path / layout))
    assert (fetch_model(REPO, cache_dir=hub.cache) / "open_clip_model.safetensors").is_file()
    publish(hub, written(bundle, "bundle", tmp_path / "bundle"))
    hub.requests.clear()
    folder = fetch_model(REPO, cache_dir=hub.cache)
    assert (folder / "clip_config.json").is_file()
    assert not any(
        "config.json" in request.file and "clip_config" not in request.file
        for request in hub.requests
        if "tokenizer" not in request.file
    )


def test_shards_of_transformers_are_fetched_by_their_list(hub, bundle, tmp_path) -> None:
    from safetensors.torch import load_file, save

    publish(hub, written(bundle, "transformers", tmp_path / "out"))
    del hub.files[REPO, "model.safetensors"]
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    halves = {"one.safetensors": list(tensors)[::2], "two.safetensors": list(tensors)[1::2]}
    for name, keys in halves.items():
        hub.files[REPO, name] = save({key: tensors[key] for key in keys})
    index = {"weight_map": {key: name for name, keys in halves.items() for key in keys}}
    hub.files[REPO, "model.safetensors.index.json"] = json.dumps(index).encode()
    loaded = clip_hub.load(REPO, cache_dir=hub.cache)
    assert torch.equal(loaded.model.text_projection, bundle.model.text_projection)


def test_a_repository_without_a_model_or_without_weights_says_so(hub, bundle, tmp_path) -> None:
    hub.files[REPO, "README.md"] = b"hello"
    with pytest.raises(DownloadError, match=r"holds no model that can be read.*clip_config\.json"):
        clip_hub.load(REPO, cache_dir=hub.cache)
    publish(hub, written(bundle, "open_clip", tmp_path / "out"), "someone/other")
    del hub.files["someone/other", "open_clip_model.safetensors"]
    with pytest.raises(DownloadError, match="has none of model.safetensors, pytorch_model.bin"):
        clip_hub.load("someone/other", cache_dir=hub.cache)
    with pytest.raises(DownloadError, match="no such repository"):
        clip_hub.load("someone/nothing", cache_dir=hub.cache)
    with pytest.raises(ConfigError, match="'tiny' is no Hub repository; write org/name"):
        clip_hub.load("hf-hub:tiny")


def test_wrong_bytes_never_become_a_model(hub, bundle, tmp_path) -> None:
    publish(hub, written(bundle, "open_clip", tmp_path / "out"))
    hub.fail("flip", "open_clip_model.safetensors")
    with pytest.raises(DownloadError, match="wrong hash twice"):
        clip_hub.load(REPO, cache_dir=hub.cache)
    hub.heal()
    assert clip_hub.load(REPO, cache_dir=hub.cache).config == bundle.config


def test_what_is_on_disk_goes_before_the_hub(bundle, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    clip_core.save(bundle, tmp_path / "runs" / "bundle")
    assert torch.equal(clip_hub.load("runs/bundle").model.text_projection, bundle.model.text_projection)


def words(hub, repo: str) -> HfTokenizerConfig:
    hub.files[repo, "tokenizer.json"] = json.dumps(TOKENIZER).encode()
    hub.files[repo, "tokenizer_config.json"] = json.dumps({"pad_token": "<pad>"}).encode()
    return HfTokenizerConfig(context_length=32, source=repo, clean="whitespace", pad_id=0)


def test_a_vocabulary_is_fetched_with_what_is_said_about_it(hub, monkeypatch) -> None:
    config = words(hub, "someone/words")
    folder = fetch_vocabulary(config, cache_dir=hub.cache)
    assert folder is not None
    assert sorted(path.name for path in folder.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    assert fetch_vocabulary(ClipTokenizerConfig(context_length=77)) is None
    offline(monkeypatch)
    assert fetch_vocabulary(config, cache_dir=hub.cache) == folder
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE forbids the network"):
        fetch_vocabulary(dataclasses.replace(config, source="someone/others"), cache_dir=hub.cache)


def test_the_tokenizer_of_an_architecture_is_fetched_by_its_name(hub, monkeypatch) -> None:
    config = dataclasses.replace(clip_core.get_config("tiny"), tokenizer=words(hub, "someone/words"))
    for module in ("clip_core.creation", "clip_core"):
        monkeypatch.setattr(f"{module}.get_config", lambda _: config)
    tokenizer = clip_hub.get_tokenizer("tiny", 5, cache_dir=hub.cache)
    assert tokenizer("two dogs").tolist() == [[2, 3, 0, 0, 0]]
    folder = fetch_vocabulary(config.tokenizer, cache_dir=hub.cache)
    hub.requests.clear()
    assert clip_hub.get_tokenizer("tiny", folder=folder)("dogs")[0, 0] == 3
    assert hub.requests == []


def test_a_repository_whose_vocabulary_is_in_another_one_gets_it(hub, bundle, tmp_path) -> None:
    config = dataclasses.replace(bundle.config, tokenizer=words(hub, "someone/words"))
    publish(hub, clip_core.save(clip_core.Bundle.of(build(config)), tmp_path / "out"))
    loaded = clip_hub.load(REPO, cache_dir=hub.cache)
    assert loaded.tokenizer(["two dogs"])[0, :2].tolist() == [2, 3]


def test_a_tag_brings_the_vocabulary_of_its_tokenizer(hub, bundle, monkeypatch) -> None:
    from safetensors.torch import save

    row = clip_hub.find_name("ViT-B-16-SigLIP:webli")
    small = dataclasses.replace(bundle.config, tokenizer=words(hub, row.repo))
    monkeypatch.setattr(clip_hub.Tag, "config", lambda _: small)
    hub.files[row.repo, "open_clip_model.safetensors"] = save(bundle.model.state_dict())
    loaded = clip_hub.load("ViT-B-16-SigLIP:webli", cache_dir=hub.cache)
    assert loaded.tokenizer(["two dogs"])[0, :2].tolist() == [2, 3]
    hub.requests.clear()
    assert clip_hub.create("ViT-B-16-SigLIP", "webli", device="meta").model.logit_scale.is_meta
    assert hub.requests == []


@pytest.mark.parametrize("layout", ["bundle", "open_clip", "transformers"])
def test_what_is_cached_loads_at_once_while_the_hub_fails(hub, bundle, layout, tmp_path, monkeypatch, caplog) -> None:
    publish(hub, written(bundle, layout, tmp_path / "out"))
    clip_hub.load(REPO, cache_dir=hub.cache)
    pauses: list[float] = []
    monkeypatch.setattr("clip_hub.retrying.sleep", pauses.append)
    hub.requests.clear()
    hub.fail("503")
    loaded = clip_hub.load(REPO, cache_dir=hub.cache)
    assert torch.equal(loaded.model.text_projection, bundle.model.text_projection)
    assert (len(hub.requests), pauses) == (1, [])
    assert caplog.text.count("using the cache") == 1
    with pytest.raises(DownloadError, match="503 .it has trouble., 5 times"):  # what is not cached is waited for
        clip_hub.load(REPO, revision="other", cache_dir=hub.cache)
    assert pauses == [1, 2, 4, 8]


def test_names_of_repositories_have_one_form() -> None:
    assert RepositoryName.of("timm/vit.openai") == RepositoryName("timm/vit.openai", "main")
    assert RepositoryName.of("hf-hub:a/b@refs/pr/1") == RepositoryName("a/b", "refs/pr/1")
    assert RepositoryName.of("a/b@") == RepositoryName("a/b")
    for text in ("a", "a/b/c", "/b", "a/", ".a/b", "a b/c", "a/b@x", "hf-hub:a/b"):
        assert not is_repository(text)
    with pytest.raises(ConfigError, match="'a/b/c' is no Hub repository; write org/name"):
        RepositoryName.of("a/b/c@main")


def test_a_path_without_a_folder_says_that_there_is_none(hub) -> None:
    with pytest.raises(DownloadError, match=r"no such repository.*There is no folder 'runs/x' here, either"):
        clip_hub.load("runs/x", cache_dir=hub.cache)
    with pytest.raises(DownloadError) as caught:
        clip_hub.load("hf-hub:runs/x", cache_dir=hub.cache)
    assert "folder" not in str(caught.value)


def test_an_index_cannot_name_files_outside_of_its_repository(hub, bundle, tmp_path) -> None:
    publish(hub, written(bundle, "transformers", tmp_path / "out"))
    del hub.files[REPO, "model.safetensors"]
    hub.files[REPO, "model.safetensors.index.json"] = json.dumps({"weight_map": {"x": "../../../x"}}).encode()
    with pytest.raises(DownloadError, match="leads out of it"):
        clip_hub.load(REPO, cache_dir=hub.cache)
