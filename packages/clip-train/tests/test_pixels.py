from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest

from clip_train.data.pixels import image_size


def encoded(size: tuple[int, int], form: str, **options: object) -> bytes:
    data = io.BytesIO()
    PIL.Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(data, form, **options)
    return data.getvalue()


@pytest.mark.parametrize("size", [(1, 1), (33, 7), (700, 300)])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_the_header_says_the_size(size: tuple[int, int], form: str) -> None:
    assert image_size(encoded(size, form)) == size


def test_jpegs_of_all_kinds() -> None:
    exif = PIL.Image.Exif()
    exif[0x010E] = "x" * 3000
    for options in ({"progressive": True}, {"exif": exif}, {"comment": b"c" * 100}, {"optimize": True}):
        assert image_size(encoded((90, 40), "JPEG", **options)) == (90, 40)


def test_a_bomb_is_seen_by_its_header_alone() -> None:
    data = bytearray(encoded((5, 5), "PNG"))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    assert image_size(bytes(data)) == (60_000, 60_000)


def test_what_has_no_header_is_left_to_the_decoder() -> None:
    assert image_size(b"no image") is None
    assert image_size(b"") is None
    assert image_size(encoded((90, 40), "JPEG")[:12]) is None
