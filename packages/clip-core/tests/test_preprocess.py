"""The transforms against torchvision's own and open_clip's, bit for bit."""

from __future__ import annotations

import dataclasses

import open_clip
import PIL.Image
import pytest
import torch
from torchvision import transforms
from torchvision.transforms import InterpolationMode

import clip_core
from clip_core.errors import ConfigError, ImageError
from clip_core.preprocess import AugmentConfig, build_transform
from clip_core.presets.parts import OPENAI_MEAN, OPENAI_STD

pytestmark = pytest.mark.parity

CONFIG = clip_core.get_config("ViT-B-32").preprocess


@pytest.mark.parametrize("size", [(300, 200), (201, 333), (224, 224), (64, 48), (1000, 30)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK"])
def test_evaluation_equals_torchvision_and_open_clip(photo: PIL.Image.Image, size, mode: str) -> None:
    image = photo.resize(size).convert(mode)
    expected = transforms.Compose(
        [
            transforms.Resize(224, interpolation=InterpolationMode.BICUBIC, antialias=True),
            transforms.CenterCrop(224),
            lambda picture: picture.convert("RGB"),
            transforms.ToTensor(),
            transforms.Normalize(OPENAI_MEAN, OPENAI_STD),
        ]
    )(image)
    ours = build_transform(CONFIG)(image)
    assert ours.shape == (3, 224, 224)
    assert ours.dtype == torch.float32
    assert torch.equal(ours, expected)
    assert torch.equal(ours, open_clip.image_transform(224, is_train=False)(image))


def test_squash_and_bilinear_equal_open_clip(photo: PIL.Image.Image) -> None:
    config = dataclasses.replace(CONFIG, interpolation="bilinear", resize_mode="squash")
    peer = open_clip.image_transform(224, is_train=False, resize_mode="squash", interpolation="bilinear")
    assert torch.equal(build_transform(config)(photo), peer(photo))


def test_training_equals_open_clip_under_the_same_seed(photo: PIL.Image.Image) -> None:
    results = []
    for transform in (
        build_transform(CONFIG, train=True, augment=AugmentConfig(scale=(0.3, 0.8))),
        open_clip.image_transform(224, is_train=True, aug_cfg={"scale": (0.3, 0.8)}),
    ):
        torch.manual_seed(5)
        results.append(torch.stack([transform(photo) for _ in range(3)]))
    assert torch.equal(*results)
    assert not torch.equal(results[0][0], results[0][1])


@pytest.mark.parametrize("mode", ["P", "1"])
def test_a_picture_that_pillow_would_resize_to_the_nearest_pixel_is_expanded_first(photo, mode: str) -> None:
    picture = photo.quantize(64) if mode == "P" else photo.convert("1")
    assert picture.mode == mode
    expected = open_clip.image_transform(224, is_train=False)(picture.convert("RGB"))
    assert torch.equal(build_transform(CONFIG)(picture), expected)


def test_what_is_no_image_is_refused_with_the_way_to_one() -> None:
    with pytest.raises(ImageError, match="takes a PIL image, not str; clip_core.open_image opens"):
        build_transform(CONFIG)("cat.jpg")


@pytest.mark.parametrize("size", [(20_000, 2), (2, 20_000)])
def test_a_picture_that_would_grow_beyond_memory_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=f"{size[0]} x {size[1]} pixels is too long and thin"):
        build_transform(CONFIG)(PIL.Image.new("RGB", size))


def test_augmentation_is_refused_for_evaluation_and_out_of_range() -> None:
    with pytest.raises(ConfigError, match="pass train=True"):
        build_transform(CONFIG, augment=AugmentConfig())
    with pytest.raises(ConfigError, match=r"AugmentConfig.scale is \(0.9, 0.1\)"):
        AugmentConfig(scale=(0.9, 0.1))
