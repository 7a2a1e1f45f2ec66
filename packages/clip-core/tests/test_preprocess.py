"""Every kind of image into the transform, and the errors that say what is wrong with one."""

from __future__ import annotations

import dataclasses
import io
import pickle

import numpy as np
import PIL.Image
import pytest
import torch

import clip_core
from clip_core.errors import ConfigError, ImageError
from clip_core.preprocess import AugmentConfig, build_transform

CONFIG = clip_core.get_config("ViT-B-32").preprocess
TRANSFORM = build_transform(CONFIG)


def test_every_form_of_one_picture_gives_the_same_tensor(tmp_path, photo: PIL.Image.Image) -> None:
    photo.save(tmp_path / "photo.png")
    pixels = np.asarray(photo)
    expected = TRANSFORM(photo)
    assert (expected.shape, expected.dtype) == ((3, 224, 224), torch.float32)
    for source in (
        tmp_path / "photo.png",
        str(tmp_path / "photo.png"),
        (tmp_path / "photo.png").read_bytes(),
        pixels,
        np.asfortranarray(pixels),
        torch.from_numpy(pixels.copy()).permute(2, 0, 1),
    ):
        assert torch.equal(TRANSFORM(source), expected)


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_arrays_of_one_and_four_channels_are_grey_and_transparent(photo: PIL.Image.Image, mode: str) -> None:
    picture = photo.convert(mode)
    if mode == "RGBA":
        picture.putalpha(photo.convert("L"))
    pixels = np.array(picture).reshape(200, 300, -1)
    assert torch.equal(TRANSFORM(pixels), TRANSFORM(picture))
    assert torch.equal(TRANSFORM(torch.from_numpy(pixels).permute(2, 0, 1)), TRANSFORM(picture))
    if mode == "L":
        assert torch.equal(TRANSFORM(pixels[:, :, 0]), TRANSFORM(picture))


def test_16_bit_grey_is_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 224 * 224).round().astype(np.uint16).reshape(224, 224)
    config = dataclasses.replace(CONFIG, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    data = io.BytesIO()
    PIL.Image.fromarray(ramp).save(data, "PNG")
    given = build_transform(config)(data.getvalue())
    # At this size nothing is resized, and 8 bits are off by half a step at most.
    assert np.abs(given.numpy() - ramp / 65535).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bit_pictures_within_8_bits_are_those_pictures_and_others_are_refused(photo, mode: str) -> None:
    grey = photo.resize((224, 224)).convert("L")
    assert torch.equal(TRANSFORM(grey.convert(mode)), TRANSFORM(grey))
    wide = PIL.Image.fromarray(np.asarray(grey).astype(np.int32 if mode == "I" else np.float32) * 100)
    assert wide.mode == mode
    with pytest.raises(ImageError, match=f"is of mode {mode} with values from .* to .*, and nothing says"):
        TRANSFORM(wide)


def test_a_picture_that_would_be_less_than_a_pixel_high_keeps_one() -> None:
    config = dataclasses.replace(
        CONFIG, resize_mode="longest", fill_color=255, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )
    dark = build_transform(config)(PIL.Image.new("RGB", (20_000, 2))) == 0
    assert dark.sum() == 3 * 224
    assert dark[:, 111].all()


@pytest.mark.parametrize("size", [(20_000, 2), (2, 20_000)])
def test_a_picture_that_would_grow_beyond_memory_is_refused_by_its_name(tmp_path, size: tuple[int, int]) -> None:
    PIL.Image.new("RGB", size).save(tmp_path / "thin.png")
    with pytest.raises(ImageError, match=rf"thin.png of {size[0]} x {size[1]} pixels is too long and thin"):
        TRANSFORM(tmp_path / "thin.png")
    named = clip_core.open_image((tmp_path / "thin.png").read_bytes(), name="0.tar:1.png")
    with pytest.raises(ImageError, match=r"The image 0.tar:1.png of"):
        TRANSFORM(named)
    config = dataclasses.replace(CONFIG, size=(112, 224))
    with pytest.raises(ImageError, match="resized to cover 224 x 112"):
        build_transform(config)(PIL.Image.new("RGB", size))
    for other in (dataclasses.replace(CONFIG, resize_mode=mode) for mode in ("squash", "longest")):
        assert build_transform(other)(PIL.Image.new("RGB", size)).shape == (3, 224, 224)
    assert build_transform(CONFIG, train=True)(PIL.Image.new("RGB", size)).shape == (3, 224, 224)


def test_a_mode_without_colours_that_pillow_knows_is_an_error() -> None:
    with pytest.raises(ImageError, match="of mode La, which Pillow cannot make RGB"):
        TRANSFORM(PIL.Image.new("La", (9, 9)))


def test_augmentation_is_refused_for_evaluation() -> None:
    with pytest.raises(ConfigError, match="pass train=True"):
        build_transform(CONFIG, augment=AugmentConfig())


@pytest.mark.parametrize(
    "transform",
    [
        build_transform(dataclasses.replace(CONFIG, resize_mode="longest")),
        build_transform(dataclasses.replace(CONFIG, size=(64, 96))),
        build_transform(
            CONFIG,
            train=True,
            augment=AugmentConfig(color_jitter=(0.1, 0.1, 0.1, 0.1), color_jitter_prob=1.0, gray_scale_prob=0.5),
        ),
    ],
)
def test_a_transform_goes_to_worker_processes(photo: PIL.Image.Image, transform) -> None:
    copy = pickle.loads(pickle.dumps(transform))
    assert copy(photo).shape == transform(photo).shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"config": None}, "config=None; allowed: PreprocessConfig, which PreprocessConfig.from_json"),
        ({"config": clip_core.get_config("tiny")}, r"config=ClipConfig\(.*; allowed: PreprocessConfig"),
        ({"train": True, "augment": {"scale": (0.5, 1.0)}}, r"augment=\{.*\}; allowed: AugmentConfig, which Augment"),
    ],
)
def test_records_of_another_kind_are_refused(arguments: dict[str, object], message: str) -> None:
    given = {"config": clip_core.get_config("tiny").preprocess, **arguments}
    with pytest.raises(ConfigError, match=message):
        build_transform(**given)
