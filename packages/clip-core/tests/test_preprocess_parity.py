"""Evaluation transforms against open_clip's, torchvision's and timm's, bit for bit."""

from __future__ import annotations

import dataclasses

import hypothesis.strategies as st
import numpy as np
import open_clip
import PIL.Image
import pytest
import timm.data
import torch
from hypothesis import given, settings
from torchvision import transforms
from torchvision.transforms import InterpolationMode

import clip_core
from clip_core.preprocess import build_transform
from clip_core.presets.parts import OPENAI_MEAN, OPENAI_STD

pytestmark = pytest.mark.parity

CONFIG = clip_core.get_config("ViT-B-32").preprocess
STATISTICS = [
    (OPENAI_MEAN, OPENAI_STD),
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # Inception: SigLIP, CLIPA
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # ImageNet
    ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),  # none: MobileCLIP
]


@settings(max_examples=150, deadline=None)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    mode=st.sampled_from(["RGB", "RGB", "L", "LA", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F"]),
    size=st.one_of(st.integers(1, 96), st.tuples(st.integers(1, 96), st.integers(1, 96))),
    resize_mode=st.sampled_from(["shortest", "longest", "squash"]),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    fill=st.integers(0, 255),
    statistics=st.sampled_from(STATISTICS),
)
def test_evaluation_equals_open_clip(width, height, mode, size, resize_mode, interpolation, fill, statistics) -> None:
    pixels = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 4), dtype=np.uint8)
    if mode in ("RGB", "YCbCr", "HSV"):
        image = PIL.Image.fromarray(pixels[:, :, :3]).convert(mode)
    elif mode in ("L", "I", "F"):
        image = PIL.Image.fromarray(pixels[:, :, 0]).convert(mode)
    elif mode == "CMYK":
        image = PIL.Image.frombytes("CMYK", (width, height), pixels.tobytes())
    else:
        image = PIL.Image.fromarray(pixels).convert(mode)
    mean, std = statistics
    config = dataclasses.replace(
        CONFIG, size=size, resize_mode=resize_mode, interpolation=interpolation, fill_color=fill, mean=mean, std=std
    )
    peer = open_clip.image_transform(
        size, is_train=False, mean=mean, std=std, resize_mode=resize_mode, interpolation=interpolation, fill_color=fill
    )
    try:
        expected = peer(image)
    except ValueError as error:
        # With "longest" the peer cannot make a very thin picture less than one pixel thick.
        if "must be > 0" not in str(error):
            raise
        return
    ours = build_transform(config)(image)
    assert torch.equal(ours, expected)


@pytest.mark.parametrize("size", [(300, 200), (201, 333), (224, 224), (64, 48), (1000, 30)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK"])
def test_evaluation_equals_torchvision(photo: PIL.Image.Image, size, mode: str) -> None:
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
    assert torch.equal(build_transform(CONFIG)(image), expected)


@pytest.mark.parametrize("size", [(300, 200), (201, 333), (256, 256), (40, 90)])
@pytest.mark.parametrize(("resize_mode", "crop_mode"), [("shortest", "center"), ("squash", "squash")])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_evaluation_equals_timm_where_timm_cuts_nothing_off(photo, size, resize_mode, crop_mode, interpolation) -> None:
    config = dataclasses.replace(CONFIG, size=96, resize_mode=resize_mode, interpolation=interpolation)
    peer = timm.data.create_transform(
        96, interpolation=interpolation, mean=OPENAI_MEAN, std=OPENAI_STD, crop_pct=1.0, crop_mode=crop_mode
    )
    image = photo.resize(size)
    assert torch.equal(build_transform(config)(image), peer(image))


@pytest.mark.parametrize("kind", ["opaque", "one clear colour", "several clear colours", "one bit"])
def test_a_picture_that_pillow_would_resize_to_the_nearest_pixel_is_made_rgb_first(photo, kind: str) -> None:
    picture = photo.convert("1") if kind == "one bit" else photo.quantize(64)
    opaque = picture.convert("RGB")
    if "clear" in kind:
        picture.info["transparency"] = 3 if kind == "one clear colour" else bytes(range(64))
    assert torch.equal(build_transform(CONFIG)(picture), open_clip.image_transform(224, is_train=False)(opaque))
