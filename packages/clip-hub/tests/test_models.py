"""Loading by name from a Hub on this machine, and the features against open_clip's on the same file."""

from __future__ import annotations

from pathlib import Path

import open_clip
import PIL.Image
import pytest
import torch
from safetensors.torch import save

import clip_core
import clip_hub
from clip_core.errors import CheckpointMismatch, ConfigError, UnknownModel

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def peer() -> torch.nn.Module:
    torch.manual_seed(0)
    return open_clip.create_model("ViT-B-32-quickgelu").eval()


def publish(hub, peer: torch.nn.Module, repo: str) -> None:
    weights = {key: value.contiguous() for key, value in peer.state_dict().items()}
    hub.files[repo, "open_clip_model.safetensors"] = save(weights)


@torch.no_grad()
def test_a_tag_brings_weights_activation_and_preprocessing(hub, peer: torch.nn.Module) -> None:
    publish(hub, peer, clip_hub.find("ViT-B-32", "openai").repo)
    bundle = clip_hub.load("ViT-B-32:openai", cache_dir=hub.cache)
    assert bundle.config.image.activation == "quick_gelu"
    image = PIL.Image.effect_noise((300, 200), 90).convert("RGB")
    pixels = bundle.preprocess(image)[None]
    assert torch.equal(pixels[0], open_clip.image_transform(224, is_train=False)(image))
    texts = ["a photo of a cat", "two dogs"]
    tokens = bundle.tokenizer(texts)
    torch.testing.assert_close(bundle.model.encode_image(pixels), peer.encode_image(pixels), atol=1e-5, rtol=0)
    torch.testing.assert_close(bundle.model.encode_text(tokens), peer.encode_text(tokens), atol=1e-5, rtol=0)

    model, train, evaluate = clip_hub.create_model_and_transforms("ViT-B-32-quickgelu", "openai", cache_dir=hub.cache)
    assert torch.equal(model.visual.proj, bundle.model.visual.proj)
    assert torch.equal(evaluate(image), pixels[0])
    assert train(image).shape == (3, 224, 224)


def test_a_failed_download_never_gives_a_model(hub) -> None:
    hub.fail("500")
    with pytest.raises(clip_hub.DownloadError):
        clip_hub.create_model("ViT-B-32", "laion2b_s34b_b79k", cache_dir=hub.cache)


def test_a_file_of_another_model_on_the_hub_is_refused(hub) -> None:
    weights = clip_core.create_model("tiny").state_dict()
    hub.files[clip_hub.find("ViT-B-32", "openai").repo, "open_clip_model.safetensors"] = save(weights)
    with pytest.raises(CheckpointMismatch, match="do not fit the model"):
        clip_hub.load("ViT-B-32:openai", cache_dir=hub.cache)


def test_local_folders_and_files_work_as_in_clip_core(tmp_path: Path) -> None:
    bundle = clip_core.create("tiny")
    folder = clip_core.save(bundle, tmp_path / "bundle")
    weights = folder / "model.safetensors"
    for model in (
        clip_hub.load(folder).model,
        clip_hub.load(str(folder)).model,
        clip_hub.load(f"tiny:{weights}").model,
        clip_hub.create("tiny", folder).model,
        clip_hub.create_model("tiny", weights),
    ):
        assert torch.equal(model.text_projection, bundle.model.text_projection)


def test_without_weights_a_fresh_model_is_built_and_meta_fetches_nothing() -> None:
    torch.manual_seed(3)
    ours = clip_hub.create_model("tiny")
    torch.manual_seed(3)
    assert torch.equal(ours.text_projection, clip_core.create_model("tiny", "").text_projection)
    meta = clip_hub.create_model("ViT-B-32", "openai", "bf16", torch.device("meta"))
    assert meta.dtype == torch.bfloat16
    assert meta.config.image.activation == "quick_gelu"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("ViT-B-32", UnknownModel, "an architecture without weights: write model:tag .*its tags are openai, "),
        ("ViT-B-32:", UnknownModel, "without weights"),
        ("ViT-B-99:openai", UnknownModel, "Unknown model 'ViT-B-99'. Did you mean ViT-B-"),
        ("ViT-B-32:opena", UnknownModel, "'opena'. Did you mean openai"),
        ("no/such/folder", ConfigError, "There is no folder 'no/such/folder'"),
    ],
)
def test_names_that_mean_nothing_are_refused(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        clip_hub.load(name)


def test_files_that_are_not_there_or_need_an_architecture_say_so(tmp_path: Path) -> None:
    weights = clip_core.save(clip_core.create("tiny"), tmp_path / "b") / "model.safetensors"
    with pytest.raises(ConfigError, match="is a file; say which architecture it is for"):
        clip_hub.load(weights)
    for name in ("weights.pt", "/nope", "runs/bundle"):
        with pytest.raises(ConfigError, match=f"There is no file or folder '{name}'"):
            clip_hub.create_model("ViT-B-32", name)
    assert clip_hub.find("ViT-B/32", "openai").model == "ViT-B-32"


def test_a_folder_without_a_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no clip_config.json"):
        clip_hub.load(tmp_path)


def test_public_names_are_the_ones_promised() -> None:
    names = """Description DownloadError Refused RepositoryContents RepositoryFile Score Tag UploadError __version__
        create create_model create_model_and_transforms fetch find find_name get_tokenizer list_models list_models_with
        list_pretrained list_tags load push repository_files"""
    assert sorted(clip_hub.__all__) == sorted(names.split())
    assert all(hasattr(clip_hub, name) for name in clip_hub.__all__)
