"""clip_core.train_patches against timm's NaFlex transforms, and clip_core.towers.naflex for patches of another size."""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from timm.data import create_transform
from timm.data.naflex_dataset import NaFlexCollator
from timm.data.naflex_transforms import Patchify
from timm.layers import resample_patch_embed

import clip_core
from clip_core.augment import AugmentConfig, seed_augmentation
from clip_core.building import build
from clip_core.config import NaFlexConfig
from clip_core.errors import ConfigError
from clip_core.preprocess_naflex import stack_patches
from clip_core.presets.parts import model, text_tower
from clip_core.train_patches import TrainPatches

pytestmark = pytest.mark.parity

CONFIG = clip_core.get_config("naflex_ViT-B-32").preprocess


def picture(height: int, width: int) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"scale": (0.2, 1.0), "ratio": (0.5, 2.0), "hflip": 0.5, "color_jitter": 0.4, "interpolation": "random"},
        {"auto_augment": "rand-m9-mstd0.5-inc1"},
        {"re_prob": 1.0, "re_count": 2},
    ],
)
def test_patches_are_bit_for_bit_those_of_timm(more: dict[str, Any]) -> None:
    augment = AugmentConfig(use_timm=True, **more)
    ours = TrainPatches(CONFIG, 8, 30, augment)
    # What open_clip's main asks of timm with --use-naflex.
    peer = create_transform(
        input_size=(3, 224, 224),
        is_training=True,
        naflex=True,
        patch_size=8,
        max_seq_len=30,
        scale=augment.scale,
        ratio=augment.ratio,
        hflip=augment.hflip,
        color_jitter=augment.color_jitter or None,
        auto_augment=augment.auto_augment or None,
        interpolation=CONFIG.interpolation if augment.interpolation == "model" else augment.interpolation,
        mean=CONFIG.mean,
        std=CONFIG.std,
        re_prob=augment.re_prob,
        re_mode="pixel",
        re_count=augment.re_count,
    )
    pictures = [picture(40, 90), picture(100, 31), picture(64, 64)]
    theirs = []
    for number, image in enumerate(pictures):
        seed_augmentation(number)
        theirs.append((Patchify(8)(peer(image)), 0))
    expected, _ = NaFlexCollator(max_seq_len=30)(theirs)
    raw = stack_patches(ours.draw(ours.open(image), number) for number, image in enumerate(pictures))
    assert raw["patches"].dtype == (torch.float32 if augment.re_prob else torch.uint8)
    found = ours.normalize(raw)
    for key in ("patches", "patch_coord", "patch_valid"):
        assert torch.equal(found[key], expected[key]), key
    assert not found["patch_valid"].all()


def test_a_picture_keeps_its_shape_and_its_draws_follow_from_the_seed() -> None:
    patches = TrainPatches(CONFIG, 8, 64, AugmentConfig(use_timm=True, ratio=(1.0, 1.0)))
    rows, columns = (patches.draw(patches.open(picture(32, 128)), 3)["patch_coord"].amax(dim=0) + 1).tolist()
    assert (rows, columns) == (4, 16)
    one, same, other = (patches.draw(picture(90, 90), seed)["patches"] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_what_cannot_be_cut_is_refused_in_words() -> None:
    with pytest.raises(ConfigError, match="use_timm is False"):
        TrainPatches(CONFIG, 16, 64, AugmentConfig())
    with pytest.raises(ConfigError, match="patches of 16 pixels, 0 of them"):
        TrainPatches(CONFIG, 16, 0)
    tiny = TrainPatches(CONFIG, 16, 1024).draw(picture(2, 2), 0)
    assert 0 < tiny["patch_valid"].sum() < 1024


def small() -> clip_core.Clip:
    options = (("depth", 1), ("embed_dim", 16), ("num_heads", 2), ("patch_size", 8), ("pos_embed_grid_size", (4, 4)))
    tower = NaFlexConfig(
        name="naflexvit_base_patch16_gap",
        image_size=32,
        patch_size=8,
        max_patches=16,
        pool="avg",
        projection="linear",
        options=options,
    )
    torch.manual_seed(0)
    return build(model(8, tower, text_tower(8, 1, 1, vocab_size=49408)))


@pytest.mark.parametrize("side", [4, 16])
def test_patches_of_another_size_are_read_by_the_resampled_embedding(side: int) -> None:
    ours = small()
    names = set(ours.state_dict())
    rows = stack_patches(TrainPatches(CONFIG, side, 20).draw(picture(60, 80), n) for n in range(2))
    rows = TrainPatches(CONFIG, side, 20).normalize(rows)
    features = ours.encode_image(rows)
    features.sum().backward()
    assert ours.visual.trunk.embeds.proj.weight.grad.abs().sum() > 0
    assert set(ours.state_dict()) == names
    # timm's function, which another model of timm uses, for the weights of an embedding that convolves.
    held = ours.visual.trunk.embeds.proj
    with torch.no_grad():
        weight = resample_patch_embed(held.weight.reshape(16, 8, 8, 3).permute(0, 3, 1, 2), [side, side])
        tokens = torch.nn.functional.linear(rows["patches"], weight.permute(0, 2, 3, 1).reshape(16, -1), held.bias)
        trunk = ours.visual.trunk
        trunk.embeds.proj = torch.nn.Identity()
        expected = ours.visual.head(trunk(tokens, patch_coord=rows["patch_coord"], patch_valid=rows["patch_valid"]))
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)
