from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import clip_core
from clip_core.building import build
from clip_core.errors import CheckpointMismatch, ConfigError, UnknownModel
from clip_hub.drop_in.creation import create_model as drop_in
from clip_train import TrainConfig, initial
from clip_train.initial import augmentation, build_bundle, create_model
from clip_train.plan import prepare
from clip_train.trainer import fit, start

CPU = torch.device("cpu")


def config_of(**fields: Any) -> TrainConfig:
    return TrainConfig.of(**{"model": "tiny", "train_data": "a.tar", "precision": "fp32", **fields})


def bundle_of(**fields: Any) -> clip_core.Bundle:
    return build_bundle(config_of(**fields), CPU)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the tiny model."""
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("held") / "bundle"
    clip_core.save(clip_core.Bundle.of(clip_core.create_model("tiny")), folder)
    return folder


FORCED: tuple[dict[str, Any], ...] = (
    {},
    {"force_image_size": 64},
    {"force_image_size": (32, 64)},
    {"force_context_length": 20},
    {"force_quick_gelu": True},
    {"force_patch_dropout": 0.5},
    {"force_custom_text": True},
    {"force_image_size": 64, "force_context_length": 100, "force_patch_dropout": 0.25, "force_custom_text": True},
)


@pytest.mark.parametrize("fields", FORCED)
@pytest.mark.parametrize("given", ["", "file"])
def test_sizes_are_forced_as_the_drop_in_forces_them(weights: Path, given: str, fields: dict[str, Any]) -> None:
    pretrained = str(weights / "model.safetensors") if given else ""
    torch.manual_seed(0)
    try:
        theirs = drop_in("tiny", pretrained or None, **fields)
    except CheckpointMismatch:
        # The file says which activation it was trained with.
        with pytest.raises(CheckpointMismatch, match="activation"):
            bundle_of(pretrained=pretrained, **fields)
        return
    ours = bundle_of(pretrained=pretrained, **fields).model
    expected, found = theirs.state_dict(), ours.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    asked, held = theirs.config, ours.config
    assert (held.image, held.text, held.layout, held.preprocess) == (
        asked.image,
        asked.text,
        asked.layout,
        asked.preprocess,
    )


def test_a_run_goes_on_from_a_bundle_of_another_size(tmp_path: Path) -> None:
    """FLIP: half of the patches first, then all of them at another size."""
    first = bundle_of(force_patch_dropout=0.5, force_image_size=64, image_mean=(0.1, 0.2, 0.3))
    clip_core.save(first, tmp_path / "bundle")
    again = bundle_of(pretrained=str(tmp_path / "bundle"), force_patch_dropout=0.0, force_image_size=32)
    assert again.config.image.image_size == 32
    assert again.config.image.patch_dropout == 0.0  # type: ignore[union-attr]
    assert again.config.preprocess.mean == (0.1, 0.2, 0.3)
    for name, value in first.model.state_dict().items():
        if name != "visual.positional_embedding":
            assert torch.equal(again.model.state_dict()[name], value), name
    with pytest.raises(CheckpointMismatch):
        bundle_of(model="ViT-B-32", pretrained=str(tmp_path / "bundle"))


def test_a_folder_is_a_model_of_its_own(weights: Path) -> None:
    found = bundle_of(model=f"local-dir:{weights}").model.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in clip_core.load(weights).model.state_dict().items())
    with pytest.raises(ConfigError, match="brings its own"):
        bundle_of(model=f"local-dir:{weights}", pretrained=str(weights))
    with pytest.raises(ConfigError, match="no folder"):
        bundle_of(model="local-dir:/nowhere")


def test_what_does_not_fit_is_refused() -> None:
    for fields, said in (
        ({"model": "RN50", "force_patch_dropout": 0.5}, "force_patch_dropout"),
        ({"pretrained_image": True}, "--pretrained-image-path"),
        ({"lora_rank": 2, "precision": "pure_bf16"}, "lora_rank"),
    ):
        with pytest.raises(ConfigError, match=said):
            bundle_of(**fields)
    with pytest.raises(UnknownModel):
        create_model("tinny", "")
    for fields in (
        {"force_image_size": 0},
        {"force_patch_dropout": 1.0},
        {"lock_text_unlocked_layers": -1},
        {"lora_rank": 0},
        {"lora_alpha": 3.0},
        {"lora_rank": 4, "lock_image": True},
    ):
        with pytest.raises(ConfigError):
            config_of(**fields)


def test_preprocessing_is_what_the_flags_say() -> None:
    held = bundle_of(
        image_resize_mode="squash", image_interpolation="bilinear", image_std=(0.5, 0.4, 0.3)
    ).config.preprocess
    assert (held.resize_mode, held.interpolation, held.std) == ("squash", "bilinear", (0.5, 0.4, 0.3))
    timm = config_of(image_interpolation="random", aug_cfg={"use_timm": True})
    assert augmentation(timm).interpolation == "random"
    assert build_bundle(timm, CPU).config.preprocess.interpolation == "bicubic"
    assert augmentation(config_of(image_interpolation="bilinear")) == config_of().data.aug_cfg
    with pytest.raises(ConfigError, match="use_timm=True"):
        augmentation(config_of(image_interpolation="random"))


def test_patches_are_left_out_in_training(make_config: Callable[..., TrainConfig]) -> None:
    running = start(prepare(make_config(force_patch_dropout=0.75)))
    seen: list[int] = []
    running.plan.bundle.model.get_submodule("visual.transformer.resblocks.0").register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].shape[1])
    )
    fit(running)
    patches = running.plan.bundle.model.get_parameter("visual.positional_embedding").shape[0] - 1
    assert set(seen) == {1 + patches // 4}


def tiny_timm() -> clip_core.ClipConfig:
    """A model whose image tower is one of timm, small."""
    held, timm = clip_core.get_config("tiny"), clip_core.get_config("convnext_base").image
    image = dataclasses.replace(timm, name="test_convnext", image_size=32)  # type: ignore[arg-type]
    return dataclasses.replace(held, image=image, layout="nested")


def test_timms_weights_are_fetched_for_a_tower_of_timm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    trunk = timm.create_model("test_convnext", pretrained=False)
    save_file(trunk.state_dict(), tmp_path / "model.safetensors")
    asked: list[tuple[str, Any]] = []

    def fetch(repo: str, files: Any, **rest: Any) -> Path:
        asked.append((repo, rest["cache_dir"]))
        return tmp_path / "model.safetensors"

    monkeypatch.setattr(initial.clip_hub, "fetch", fetch)
    held = tiny_timm()
    monkeypatch.setattr(initial.clip_core, "get_config", lambda name: held)
    model = bundle_of(pretrained_image=True, cache_dir="/caches").model
    assert asked == [("timm/test_convnext.r160_in1k", "/caches")]
    found = model.visual.trunk.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(value, found[name]) for name, value in trunk.state_dict().items() if name in found)
    assert len(set(found) & set(trunk.state_dict())) > 20
    local = bundle_of(pretrained_image_path=str(tmp_path / "model.safetensors")).model
    assert torch.equal(local.visual.trunk.state_dict()["stem.0.weight"], trunk.state_dict()["stem.0.weight"])  # type: ignore[union-attr]
    assert len(asked) == 1


def test_a_text_tower_of_transformers_begins_with_its_published_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    held = clip_core.get_config("roberta-ViT-B-32")
    asked: list[str] = []
    monkeypatch.setattr(initial, "fetch_model", lambda repo, **rest: asked.append(repo))
    monkeypatch.setattr(initial, "load_text_tower", lambda model, folder: None)
    model = build(held, device="meta")
    for fields, count in (({}, 1), ({"pretrained_text": False}, 1), ({"pretrained_text_path": "x"}, 1), ({}, 2)):
        initial._begin_towers(model, config_of(model="roberta-ViT-B-32", **fields).model)
        assert len(asked) == count
    assert set(asked) == {"FacebookAI/roberta-base"}
