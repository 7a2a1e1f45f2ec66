"""Training transforms against open_clip's and timm's under the same seeds, bit for bit."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import open_clip
import PIL.Image
import pytest
import timm.data
import torch
from torchvision import transforms

import clip_core
from clip_core.augment import AugmentConfig, seed_augmentation
from clip_core.errors import ConfigError
from clip_core.preprocess import build_transform

# open_clip warns of options that it does take.
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore:Unused augmentation cfg items")]

CONFIG = dataclasses.replace(clip_core.get_config("ViT-B-32").preprocess, size=64)
JITTER = {"color_jitter": (0.4, 0.3, 0.2, 0.1), "color_jitter_prob": 0.6}


def drawn(transform, image: PIL.Image.Image, count: int = 6) -> torch.Tensor:
    torch.manual_seed(5)
    random.seed(6)
    np.random.seed(7)  # noqa: NPY002  (timm draws from the global generator)
    return torch.stack([transform(image) for _ in range(count)])


@pytest.mark.parametrize("size", [64, (48, 80)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": (0.3, 0.8)},
        {"gray_scale_prob": 0.5},
        JITTER,
        {"scale": (0.5, 1.0), "gray_scale_prob": 0.5, **JITTER},
        # The card of laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup
        {"use_timm": True, "scale": (0.5, 1.0), "re_prob": 0.4},
        {"use_timm": True, "scale": (0.3, 1.0), "ratio": (0.5, 2.0), "re_prob": 0.9, "re_count": 3},
        {"use_timm": True, "color_jitter": 0.3},
        {"use_timm": True, "color_jitter": (0.3, 0.2, 0.1)},
        {"use_timm": True, "color_jitter": (0.3, 0.2, 0.1, 0.1), "re_prob": 0.5},
    ],
)
def test_training_equals_open_clip(photo: PIL.Image.Image, size, options: dict) -> None:
    config = dataclasses.replace(CONFIG, size=size)
    photo = photo.resize((220, 200))  # light crops of one that is much wider than high are all the same
    ours = drawn(build_transform(config, train=True, augment=AugmentConfig(**options)), photo)
    peer = drawn(open_clip.image_transform(size, is_train=True, aug_cfg=options), photo)
    assert torch.equal(ours, peer)
    assert not torch.equal(ours[0], ours[1])


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "random"])
def test_interpolation_equals_open_clip_with_timm(photo: PIL.Image.Image, interpolation: str) -> None:
    options = {"use_timm": True, "scale": (0.5, 1.0)}
    peer = drawn(open_clip.image_transform(64, True, interpolation=interpolation, aug_cfg=options), photo)
    augment = AugmentConfig(interpolation=interpolation, **options)
    assert torch.equal(drawn(build_transform(CONFIG, train=True, augment=augment), photo), peer)
    if interpolation != "random":
        config = dataclasses.replace(CONFIG, interpolation=interpolation)
        assert torch.equal(drawn(build_transform(config, train=True, augment=AugmentConfig(**options)), photo), peer)


def test_without_timm_the_model_s_interpolation_counts_and_open_clip_s_is_bicubic(photo: PIL.Image.Image) -> None:
    config = dataclasses.replace(CONFIG, interpolation="bilinear")
    peer = drawn(open_clip.image_transform(64, True, interpolation="bilinear"), photo)
    bicubic = AugmentConfig(interpolation="bicubic")
    assert torch.equal(drawn(build_transform(config, train=True, augment=bicubic), photo), peer)
    crop = transforms.RandomResizedCrop(64, (0.9, 1.0), interpolation=transforms.InterpolationMode.BILINEAR)
    finish = [transforms.ToTensor(), transforms.Normalize(CONFIG.mean, CONFIG.std)]
    own = drawn(transforms.Compose([crop, *finish]), photo)
    assert torch.equal(drawn(build_transform(config, train=True), photo), own)
    assert not torch.equal(own, peer)


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "original", "augmix-m3-w3", "3a"])
def test_automatic_policies_equal_timm(photo: PIL.Image.Image, policy: str) -> None:
    jitter = 0.3 if policy == "3a" else None
    peer = timm.data.create_transform(
        64, is_training=True, scale=(0.4, 1.0), hflip=0.5, color_jitter=jitter, auto_augment=policy,
        interpolation="bicubic", mean=CONFIG.mean, std=CONFIG.std, re_prob=0.3, re_mode="pixel",
    )  # fmt: skip
    augment = AugmentConfig(
        use_timm=True, scale=(0.4, 1.0), hflip=0.5, re_prob=0.3, auto_augment=policy, color_jitter=jitter or 0.0
    )
    ours = build_transform(CONFIG, train=True, augment=augment)
    assert torch.equal(drawn(ours, photo), drawn(peer, photo))


def test_mirroring_and_ratio_equal_torchvision(photo: PIL.Image.Image) -> None:
    peer = transforms.Compose(
        [
            transforms.RandomResizedCrop(64, (0.2, 1.0), (0.4, 2.5), transforms.InterpolationMode.BICUBIC),
            transforms.RandomHorizontalFlip(0.5),
            transforms.ToTensor(),
            transforms.Normalize(CONFIG.mean, CONFIG.std),
        ]
    )
    augment = AugmentConfig(scale=(0.2, 1.0), ratio=(0.4, 2.5), hflip=0.5)
    assert torch.equal(drawn(build_transform(CONFIG, train=True, augment=augment), photo), drawn(peer, photo))


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P"])
@pytest.mark.parametrize("use_timm", [False, True])
def test_every_mode_trains(photo: PIL.Image.Image, mode: str, use_timm: bool) -> None:
    transform = build_transform(CONFIG, train=True, augment=AugmentConfig(use_timm=use_timm))
    assert drawn(transform, photo.convert(mode), 1).shape == (1, 3, 64, 64)


def test_one_seed_decides_everything(photo: PIL.Image.Image) -> None:
    augment = AugmentConfig(use_timm=True, re_prob=0.5, auto_augment="augmix-m3-w3")
    transform = build_transform(CONFIG, train=True, augment=augment)
    results = []
    for seed in (2**63 + 1, 2**63 + 1, 2):
        seed_augmentation(seed)
        results.append(torch.stack([transform(photo) for _ in range(3)]))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": (0.9, 0.1)}, r"scale is \(0.9, 0.1\)"),
        ({"hflip": 1.5}, "hflip is 1.5; allowed: a probability"),
        ({"re_prob": 0.4}, "re_prob is 0.4; allowed: 0, or anything with use_timm=True"),
        ({"auto_augment": "original"}, "auto_augment is 'original'; allowed: '', or anything with use_timm"),
        ({"interpolation": "random"}, "only with use_timm"),
        ({"color_jitter": 0.4}, "four numbers together with color_jitter_prob"),
        ({"color_jitter": (0.4, 0.4, 0.4), "color_jitter_prob": 0.8}, "four numbers"),
        ({"color_jitter_prob": 0.8}, "four numbers"),
        ({"color_jitter": (0.4, 0.4, 0.4, 0.6), "color_jitter_prob": 0.8}, "for the hue"),
        ({"color_jitter": -1.0, "use_timm": True}, "numbers from 0 on"),
        ({"use_timm": True, "gray_scale_prob": 0.2}, "gray_scale_prob is 0.2; allowed: 0 with use_timm=True"),
        ({"use_timm": True, "auto_augment": "original", "color_jitter": 0.4}, "0 with auto_augment"),
        ({"use_timm": True, "re_count": 0}, "re_count is 0; allowed: 1 or more"),
    ],
)
def test_what_the_peer_would_leave_out_or_fail_at_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AugmentConfig(**options)


def test_a_policy_that_timm_does_not_know_is_named() -> None:
    for policy in ("random-m9", "rand-x9", "v9"):
        augment = AugmentConfig(use_timm=True, auto_augment=policy)
        with pytest.raises(ConfigError, match=f"auto_augment is '{policy}', which timm does not read"):
            build_transform(CONFIG, train=True, augment=augment)
