"""Other resolutions and context lengths: clip_core.layers.positions and its use in loading, against open_clip 3.3.0."""

from __future__ import annotations

import dataclasses
import logging
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import open_clip
import PIL.Image
import pytest
import torch
from open_clip.model import resize_pos_embed, resize_text_pos_embed
from open_clip.pos_embed import get_2d_sincos_pos_embed
from safetensors.torch import save_file

import clip_core
from clip_core.config import AttentionPoolConfig, VitConfig
from clip_core.errors import CheckpointMismatch, ConfigError
from clip_core.layers.positions import resize_grid, resize_line, sin_cos_grid, square_grid

pytestmark = pytest.mark.parity


@pytest.mark.parametrize(("side", "width"), [(1, 8), (7, 64), (16, 12)])
def test_sine_and_cosine_positions_equal_open_clip(side: int, width: int) -> None:
    expected = torch.from_numpy(get_2d_sincos_pos_embed(width, side, cls_token=True)).float()
    assert torch.equal(sin_cos_grid((side, side), width), expected)


def test_sine_and_cosine_positions_of_a_grid_that_is_not_square() -> None:
    table = sin_cos_grid((2, 3), 8).numpy()
    # Row 1, column 2 is the sixth of the grid; the two wavelengths of width 8 are 2 pi and 200 pi.
    angles = np.array([2 / 1, 2 / 100, 1 / 1, 1 / 100])
    expected = np.concatenate([np.sin(angles[:2]), np.cos(angles[:2]), np.sin(angles[2:]), np.cos(angles[2:])])
    assert table.shape == (7, 8)
    np.testing.assert_allclose(table[6], expected, atol=1e-6)


@pytest.mark.parametrize(("old", "new"), [(7, (9, 9)), (9, (4, 4)), (4, (2, 9)), (5, (1, 1)), (2, (7, 3))])
def test_grids_are_interpolated_as_open_clip_does(old: int, new: tuple[int, int]) -> None:
    table = torch.randn(1 + old * old, 6)
    weights = {"visual.positional_embedding": table.clone()}
    resize_pos_embed(weights, SimpleNamespace(visual=SimpleNamespace(grid_size=new)))
    assert torch.equal(resize_grid(table, (old, old), new), weights["visual.positional_embedding"])
    assert resize_grid(table.half(), (old, old), new).dtype == torch.float16


@pytest.mark.parametrize(("old", "new"), [(77, 32), (32, 77), (5, 6), (6, 5)])
def test_lines_are_interpolated_as_open_clip_does(old: int, new: int) -> None:
    table = torch.randn(old, 6)
    weights = {"positional_embedding": table.clone()}
    resize_text_pos_embed(weights, SimpleNamespace(positional_embedding=torch.zeros(new, 6)))
    assert torch.equal(resize_line(table, new), weights["positional_embedding"])
    assert resize_line(table.bfloat16(), new).dtype == torch.bfloat16


def test_only_a_square_number_of_patches_is_a_square_grid() -> None:
    assert [square_grid(count) for count in (0, 1, 2, 49, 50)] == [None, (1, 1), None, (7, 7), None]
    assert square_grid((10**9) ** 2) == (math.isqrt(10**18),) * 2


@torch.no_grad()
def test_a_checkpoint_of_another_size_gives_the_features_of_open_clip(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, photo: PIL.Image.Image
) -> None:
    torch.manual_seed(0)
    path = tmp_path / "weights.safetensors"
    save_file(clip_core.create_model("ViT-S-32-alt").state_dict(), path)
    for image_size, context_length in (((96, 160), 20), (320, 90)):
        peer = open_clip.create_model(
            "ViT-S-32-alt", pretrained=str(path), force_image_size=image_size, force_context_length=context_length
        ).eval()
        caplog.clear()
        with caplog.at_level(logging.INFO, "clip_core"):
            bundle = clip_core.create("ViT-S-32-alt", path, image_size=image_size, context_length=context_length)
        grid = "3x5" if context_length == 20 else "10x10"
        messages = [record.getMessage() for record in caplog.records if record.name.startswith("clip_core")]
        assert f"Interpolating the positions of the image tower from 7x7 to {grid}" in messages
        assert f"Interpolating the positions of the text tower from 77 to {context_length}" in messages

        tokens = bundle.tokenizer(["a photo of a cat", "two dogs " * 40])
        assert torch.equal(tokens, open_clip.get_tokenizer("ViT-S-32-alt", context_length=context_length)(
            ["a photo of a cat", "two dogs " * 40]
        ))  # fmt: skip
        images = torch.randn(2, 3, *(image_size if isinstance(image_size, tuple) else (image_size, image_size)))
        torch.testing.assert_close(bundle.model.encode_image(images), peer.encode_image(images), atol=1e-5, rtol=0)
        torch.testing.assert_close(bundle.model.encode_text(tokens), peer.encode_text(tokens), atol=1e-5, rtol=0)
        assert bundle.preprocess(photo).shape == images.shape[1:]


@torch.no_grad()
@pytest.mark.parametrize(
    ("image_size", "grid", "unseen"),
    [
        (225, (7, 7), "1 pixels at the bottom and 1 at the right"),
        ((336, 224), (10, 7), "16 pixels at the bottom and 0 at the right"),
    ],
)
def test_images_that_patches_do_not_divide_give_the_features_of_open_clip(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, image_size: int | tuple[int, int], grid: object, unseen: str
) -> None:
    torch.manual_seed(0)
    path = tmp_path / "weights.safetensors"
    save_file(clip_core.create_model("ViT-S-32-alt").state_dict(), path)
    peer = open_clip.create_model("ViT-S-32-alt", pretrained=str(path), force_image_size=image_size).eval()
    with caplog.at_level(logging.INFO, "clip_core"):
        model = clip_core.create_model("ViT-S-32-alt", path, image_size=image_size)
    assert f"{unseen} are not seen" in caplog.text
    assert model.visual.grid == grid
    assert ("Interpolating the positions" in caplog.text) == (grid != (7, 7))
    height, width = model.visual.image_size
    images = torch.randn(2, 3, height, width)
    features = model.encode_image(images)
    torch.testing.assert_close(features, peer.encode_image(images), atol=1e-5, rtol=0)
    images[:, :, height - height % 32 :] = 9.0
    images[:, :, :, width - width % 32 :] = 9.0
    assert torch.equal(model.encode_image(images), features)


def test_a_bundle_may_be_created_in_another_size_and_then_loads_with_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    clip_core.save(clip_core.create("tiny"), tmp_path / "small")
    larger = clip_core.create("tiny", tmp_path / "small", image_size=(48, 64), context_length=10)
    assert larger.model.visual.positional_embedding.shape == (1 + 6 * 8, 96)
    clip_core.save(larger, tmp_path / "large")
    again = clip_core.load(tmp_path / "large")
    assert again.config == larger.config == clip_core.get_config("tiny").resized((48, 64), 10)
    for key, value in larger.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[key], value), key
    with pytest.raises(CheckpointMismatch, match=r"text.context_length is 10 there, 32 asked"):
        clip_core.create("tiny", tmp_path / "large", image_size=(48, 64))
    # Only a square grid can be told from the number of its patches.
    with pytest.raises(
        CheckpointMismatch, match=r"visual.positional_embedding is \(49, 96\), the model has \(17, 96\)"
    ):
        clip_core.create("tiny", shutil.move(tmp_path / "large" / "model.safetensors", tmp_path), context_length=10)


def test_a_table_that_fits_two_grids_is_taken_as_it_is_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip_core.save(clip_core.create("tiny"), tmp_path / "tiny")
    model = clip_core.create_model("tiny", tmp_path / "tiny", image_size=(16, 64))
    assert model.visual.grid == (2, 8)
    assert "16 positions of the image tower are taken for a grid of 2x8; should they be of 4x4" in caplog.text


def test_resizing_keeps_what_is_not_asked_for_and_changes_all_that_must_agree() -> None:
    tiny = clip_core.get_config("tiny")
    assert tiny.resized() == tiny
    assert tiny.resized(image_size=32, context_length=32) == tiny
    wide = tiny.resized(image_size=(32, 64))
    assert (wide.image.image_size, wide.preprocess.size) == ((32, 64), (32, 64))
    assert dataclasses.replace(wide, image=tiny.image, preprocess=tiny.preprocess) == tiny
    short = tiny.resized(context_length=8)
    assert (short.text.context_length, short.tokenizer.context_length) == (8, 8)
    with pytest.raises(ConfigError, match=r"^image_size is 7; allowed: sides of at least one patch, patch_size 8"):
        clip_core.create_model("tiny", image_size=7)
    with pytest.raises(ConfigError, match=r"^context_length is 2; allowed: 3 or more"):
        clip_core.create_model_and_transforms("tiny", context_length=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_pool": AttentionPoolConfig(queries=4, heads=3)}, "a multiple of the pool's 3 heads"),
        (
            {"attention_pool": AttentionPoolConfig(queries=4, heads=4, mode="cascade")},
            "ClipConfig.embed_dim is 128; allowed: the image tower's width 96 with pool mode 'cascade'",
        ),
        ({"positions": "sin_cos", "width": 99}, "VitConfig.width is 99; allowed: a multiple of 4"),
    ],
)
def test_image_towers_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    tiny = clip_core.get_config("tiny")
    assert isinstance(tiny.image, VitConfig)
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(tiny, image=dataclasses.replace(tiny.image, **changes))
