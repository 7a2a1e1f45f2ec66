from __future__ import annotations

import dataclasses
import pickle
import random

import numpy as np
import PIL.Image
import pytest
import torch
from torchvision import transforms

import clip_core
from clip_core.augment import AugmentConfig, seed_augmentation
from clip_core.normalize import Normalize
from clip_core.preprocess import build_transform
from clip_core.train_pixels import TrainPixels

CONFIG = dataclasses.replace(clip_core.get_config("ViT-B-32").preprocess, size=48)


def every_level() -> PIL.Image.Image:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    return PIL.Image.fromarray(np.stack([levels, levels[::-1], levels.T], axis=-1))


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16-SigLIP", "EVA02-B-16", "convnext_base_w"])
def test_every_level_becomes_the_number_that_torchvision_gives(name: str) -> None:
    config = clip_core.get_config(name).preprocess
    picture = every_level()
    expected = transforms.Normalize(config.mean, config.std)(transforms.ToTensor()(picture))
    normalize = pickle.loads(pickle.dumps(Normalize(config.mean, config.std)))
    pixels = transforms.PILToTensor()(picture)
    assert torch.equal(normalize(pixels), expected)
    assert torch.equal(normalize(torch.stack([pixels, pixels])), torch.stack([expected, expected]))
    assert normalize(expected) is expected
    assert normalize(pixels[None].contiguous(memory_format=torch.channels_last)).is_contiguous()


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK", "P", "I;16"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hflip": 0.5, "gray_scale_prob": 0.4, "color_jitter": (0.4, 0.3, 0.2, 0.1), "color_jitter_prob": 0.6},
        {"use_timm": True, "hflip": 0.5, "color_jitter": 0.3},
        {"use_timm": True, "auto_augment": "augmix-m3-w3"},
        {"use_timm": True, "re_prob": 0.9},
    ],
)
def test_normalised_pixels_are_those_of_the_float_transform(photo: PIL.Image.Image, mode: str, options: dict) -> None:
    augment = AugmentConfig(scale=(0.3, 1.0), **options)
    whole, pixels = build_transform(CONFIG, train=True, augment=augment), TrainPixels(CONFIG, augment)
    small = photo.resize((90, 70))
    picture = small.convert("L").convert("I").convert("I;16") if mode == "I;16" else small.convert(mode)
    for seed in range(4):
        seed_augmentation(seed)
        expected = whole(picture)
        random.seed(99)
        found = pixels.draw(pixels.open(picture), seed)
        assert found.dtype == (torch.float32 if "re_prob" in options else torch.uint8)
        assert torch.equal(pixels.normalize(found), expected)
