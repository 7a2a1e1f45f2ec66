from __future__ import annotations

import dataclasses
import pickle
import random
import threading

import numpy as np
import PIL.Image
import pytest
import torch
from torchvision import transforms

import clip_core
from clip_core.augment import AugmentConfig, seed_augmentation
from clip_core.draws import Draws
from clip_core.errors import ConfigError, ImageError
from clip_core.preprocess import build_transform
from clip_core.train_pixels import TrainPixels

CONFIG = dataclasses.replace(clip_core.get_config("ViT-B-32").preprocess, size=(48, 56))
PLAIN = {"hflip": 0.5, "gray_scale_prob": 0.4, "color_jitter": (0.4, 0.3, 0.2, 0.1), "color_jitter_prob": 0.6}
OPTIONS = [
    {},
    PLAIN,
    {"hflip": 0.5, "interpolation": "bilinear"},
    {"use_timm": True, "hflip": 0.5, "color_jitter": 0.3, "interpolation": "random"},
    {"use_timm": True, "auto_augment": "augmix-m3-w3"},
    {"use_timm": True, "re_prob": 0.9},
]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK", "P", "I;16"])
@pytest.mark.parametrize("options", OPTIONS)
def test_normalised_pixels_are_those_of_the_float_transform(photo: PIL.Image.Image, mode: str, options: dict) -> None:
    augment = AugmentConfig(scale=(0.3, 1.0), **options)
    whole, pixels = build_transform(CONFIG, train=True, augment=augment), TrainPixels(CONFIG, augment)
    small = photo.resize((90, 70))
    picture = small.convert("L").convert("I").convert("I;16") if mode == "I;16" else small.convert(mode)
    for seed in (0, 1, 2, 2**63 + 5):
        seed_augmentation(seed)
        expected = whole(picture)
        random.seed(99)
        found = pixels.draw(pixels.open(picture), seed)
        assert found.dtype == (torch.float32 if "re_prob" in options else torch.uint8)
        assert torch.equal(pixels.normalize(found), expected)


@pytest.mark.parametrize("size", [(90, 70), (400, 20), (20, 400), (300, 280), (48, 56)])
def test_a_drawn_crop_is_torchvision_s(size: tuple[int, int]) -> None:
    image = PIL.Image.new("RGB", size)
    for scale, ratio in (((0.9, 1.0), (3 / 4, 4 / 3)), ((0.08, 0.5), (0.2, 5.0)), ((1.0, 1.0), (1.0, 1.0))):
        for seed in range(40):
            torch.manual_seed(seed)
            expected = transforms.RandomResizedCrop.get_params(image, scale, ratio)
            assert tuple(Draws(seed).crop(size[1], size[0], scale, ratio)) == tuple(expected)


@pytest.mark.parametrize("way", ["bicubic", "bilinear"])
def test_torch_s_filter_is_two_levels_off_where_rows_come_first(way: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (150, 260, 3), dtype=np.uint8)
    # Wide parts: of tall ones Pillow 13 resizes the columns first.
    augment = AugmentConfig(scale=(0.5, 0.9), ratio=(1.5, 1.9), interpolation=way)  # type: ignore[arg-type]
    slow, fast = (TrainPixels(CONFIG, augment, resizer=resizer) for resizer in ("pillow", "torch"))
    for seed in range(12):
        difference = slow.draw(slow.open(noise), seed).int() - fast.draw(fast.open(noise), seed).int()
        assert 0 < difference.abs().max() <= 2


@pytest.mark.parametrize("options", OPTIONS[:5])
def test_torch_s_filter_is_a_few_levels_off_and_draws_the_same(photo: PIL.Image.Image, options: dict) -> None:
    augment = AugmentConfig(scale=(0.3, 1.0), **{**options, "gray_scale_prob": 0.0})
    slow, fast = (TrainPixels(CONFIG, augment, resizer=resizer) for resizer in ("pillow", "torch"))
    picture = photo.resize((200, 170))
    for source in (picture, picture.convert("L"), np.array(picture)):
        for seed in range(6):
            exact = slow.draw(slow.open(source), seed).int()
            near = fast.draw(fast.open(source), seed).int()
            difference = (exact - near).abs()
            # Changes of colour stretch what the filter left.
            plain = not augment.color_jitter and not augment.auto_augment
            assert difference.max() <= (5 if plain else 40)
            assert difference.float().mean() < (0.1 if plain else 1.0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "CMYK", "YCbCr"])
def test_modes_that_pillow_resizes_in_its_own_way_stay_with_it(photo: PIL.Image.Image, mode: str) -> None:
    picture = photo.resize((90, 70)).convert(mode)
    if mode in ("RGBA", "LA"):
        picture.putalpha(PIL.Image.linear_gradient("L").resize(picture.size))
    slow, fast = (TrainPixels(CONFIG, resizer=resizer) for resizer in ("pillow", "torch"))
    assert torch.equal(slow.draw(slow.open(picture), 3), fast.draw(fast.open(picture), 3))


def test_arrays_are_pictures_and_refused_for_both_filters_alike(photo: PIL.Image.Image) -> None:
    colours = np.array(photo.resize((60, 50)))
    held = np.frombuffer(colours.tobytes(), np.uint8).reshape(colours.shape)
    alpha = np.full((50, 60, 1), 90, np.uint8)
    usable = (colours, held, colours[::-1], colours[:, :, 0], np.concatenate([colours, alpha], axis=2))
    pillow, torch_s = (TrainPixels(CONFIG, resizer=resizer) for resizer in ("pillow", "torch"))
    for pixels in usable:
        exact, near = (maker.draw(maker.open(pixels), 3) for maker in (pillow, torch_s))
        assert exact.shape == near.shape
        assert (exact.int() - near.int()).abs().float().mean() < 0.5
    for pixels in (colours.astype(np.float32), colours[:0], np.zeros((50, 60, 2), np.uint8)):
        for maker in (pillow, torch_s):
            with pytest.raises(ImageError, match="Cannot open the array"):
                maker.open(pixels)


def test_plain_draws_leave_the_global_generators_alone(photo: PIL.Image.Image) -> None:
    pixels = pickle.loads(pickle.dumps(TrainPixels(CONFIG, AugmentConfig(**PLAIN))))
    before = torch.get_rng_state(), random.getstate()
    assert pixels.thread_safe
    pixels.draw(pixels.open(photo), 1)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert not TrainPixels(CONFIG, AugmentConfig(use_timm=True)).thread_safe


@pytest.mark.parametrize("resizer", ["pillow", "torch"])
def test_threads_draw_what_one_thread_draws(photo: PIL.Image.Image, resizer: str) -> None:
    pixels = TrainPixels(CONFIG, AugmentConfig(scale=(0.3, 1.0), **PLAIN), resizer=resizer)
    picture = pixels.open(photo.resize((120, 100)))
    alone = [pixels.draw(picture, seed) for seed in range(24)]
    found: dict[int, torch.Tensor] = {}

    def work(first: int) -> None:
        found.update((seed, pixels.draw(picture, seed)) for seed in range(first, 24, 4))

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[seed], alone[seed]) for seed in range(24))


def test_another_filter_is_refused() -> None:
    with pytest.raises(ConfigError, match="resizer is 'opencv'; allowed: pillow, torch"):
        TrainPixels(CONFIG, resizer="opencv")  # type: ignore[arg-type]
