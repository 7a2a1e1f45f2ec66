from __future__ import annotations

import numpy as np
import PIL.Image
import pytest

from clip_core.errors import ImageError
from clip_core.modes import describe, expand_mode, to_rgb


def test_palettes_and_single_bits_become_rgb_with_their_colours(photo: PIL.Image.Image) -> None:
    for mode in ("P", "1"):
        image = photo.resize((40, 30)).convert(mode)
        assert expand_mode(image).mode == "RGB"
        assert np.array_equal(expand_mode(image), image.convert("RGB"))
    assert expand_mode(photo) is photo


def test_sixteen_bits_are_scaled_and_not_cut() -> None:
    levels = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    image = PIL.Image.fromarray(levels)
    assert np.asarray(expand_mode(image)).tolist() == [[0, 1, 128, 255]]
    assert np.asarray(to_rgb(expand_mode(image))).shape == (1, 4, 3)


@pytest.mark.parametrize("value", [-1.0, 256.0, float("nan")])
def test_numbers_of_which_nothing_says_how_bright_they_are_are_refused(value: float) -> None:
    image = PIL.Image.fromarray(np.array([[0.0, value]], dtype=np.float32))
    image.filename = "x.tiff"  # type: ignore[attr-defined]
    assert describe(image) == "The image x.tiff of 2 x 1 pixels"
    with pytest.raises(ImageError, match=r"x\.tiff of 2 x 1 pixels is of mode F"):
        expand_mode(image)
