"""clip_core.convert.naflex: the features of a transformer and of the NaFlex tower made of it, on images of its size."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import clip_core
from clip_core.building import build
from clip_core.config import ClipConfig, Options, TimmConfig, VitConfig
from clip_core.convert.checkpoint import Checkpoint
from clip_core.convert.naflex import to_naflex_config, to_naflex_tensors
from clip_core.errors import ConfigError
from clip_core.preprocess_naflex import build_patch_transform, stack_patches
from clip_core.presets.parts import model, text_tower

pytestmark = pytest.mark.parity

VIT = VitConfig(image_size=32, patch_size=8, width=32, layers=2, heads=4, mlp_dim=96, activation="gelu")
SMALL: Options = (("depth", 2), ("embed_dim", 32), ("num_heads", 4))


def timm(name: str, **changes: object) -> TimmConfig:
    tower = TimmConfig(name=name, image_size=32, pool="token", projection="trunk", options=(*SMALL, ("img_size", 32)))
    return dataclasses.replace(tower, **changes)  # type: ignore[arg-type]


TOWERS = {
    "vit": VIT,
    "quick gelu": dataclasses.replace(VIT, activation="quick_gelu", layer_scale=0.3, image_size=(32, 48)),
    "no norm before": dataclasses.replace(VIT, pre_norm=False),
    "siglip": timm("vit_base_patch16_siglip_224", pool="map", projection="none", image_size=48),
    "eva02": timm("eva02_base_patch16_clip_224", image_size=48),
}


def naflex_of(plain: clip_core.Clip) -> clip_core.Clip:
    config = to_naflex_config(plain.config)
    tensors = to_naflex_tensors(plain.config, plain.state_dict())
    return build(config, Checkpoint(path=Path("plain"), layout="model", config=config, tensors=lambda asked: tensors))


def config_of(name: str) -> ClipConfig:
    tower = TOWERS[name]
    if isinstance(tower, TimmConfig):
        tower = dataclasses.replace(tower, options=(*SMALL, ("img_size", tower.image_size)))
    width = 32 if isinstance(tower, TimmConfig) and tower.projection == "none" else 24
    config = model(width, tower, text_tower(8, 1, 1, vocab_size=9))
    return dataclasses.replace(config, preprocess=dataclasses.replace(config.preprocess, size=tower.image_size))


@pytest.mark.parametrize("name", TOWERS)
def test_features_are_those_of_the_transformer(name: str) -> None:
    torch.manual_seed(0)
    plain = build(config_of(name))
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    naflex = naflex_of(plain)
    size = plain.visual.image_size
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = clip_core.build_transform(plain.config.preprocess)(picture)[None]
    patches = stack_patches([build_patch_transform(naflex.config)(picture)])
    assert patches["patch_valid"].all()
    with torch.no_grad():
        expected = plain.encode_image(image)
        assert expected.abs().mean() > 1e-2
        for given in (image, patches):
            torch.testing.assert_close(naflex.encode_image(given), expected, atol=1e-5, rtol=1e-4)
    assert all(torch.equal(before[key], value) for key, value in plain.state_dict().items())
    # It is a model like any other: its configuration alone makes it again.
    assert clip_core.ClipConfig.from_json(naflex.config.to_json()) == naflex.config
    assert to_naflex_config(naflex.config) is naflex.config
    assert to_naflex_tensors(naflex.config, naflex.state_dict()).keys() == naflex.state_dict().keys()


def test_what_cannot_be_one_is_refused_in_words() -> None:
    for tower, words in (
        (clip_core.get_config("RN50").image, "of kind 'modified_resnet'; allowed for NaFlex"),
        (timm("convnext_base", options=()), "timm's convnext_base; allowed for NaFlex"),
        (dataclasses.replace(VIT, pool="average"), "image.pool"),
        (dataclasses.replace(VIT, image_size=36), "36 x 36 are not of whole patches of 8, .*; 32 x 32 are"),
    ):
        preprocess = dataclasses.replace(config_of("vit").preprocess, size=tower.image_size)
        with pytest.raises(ConfigError, match=words):
            to_naflex_config(dataclasses.replace(config_of("vit"), image=tower, preprocess=preprocess))
