from __future__ import annotations

import io
import random
import sys
import types
from typing import Any

import numpy as np
import PIL.Image
import pytest
import simplejpeg

from clip_core import ImageError, open_image
from clip_train.data.jpeg import decode_jpeg, is_plain_jpeg

WAYS: list[dict[str, Any]] = [
    {"subsampling": subsampling, "progressive": progressive, **extra}
    for subsampling in (0, 1, 2)
    for progressive in (False, True)
    for extra in ({"quality": 40}, {"icc_profile": b"x" * 300, "quality": 95}, {"restart_marker_rows": 1})
]
XMP = b"http://ns.adobe.com/xap/1.0/\0<x/>"


def picture(mode: str = "RGB") -> PIL.Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (61, 97, 3), dtype=np.uint8)
    smooth = PIL.Image.linear_gradient("L").resize((97, 61)).convert("RGB")
    return PIL.Image.blend(smooth, PIL.Image.fromarray(noise), 0.4).convert(mode)


def encoded(mode: str = "RGB", **options: Any) -> bytes:
    data = io.BytesIO()
    picture(mode).save(data, "JPEG", **options)
    return data.getvalue()


def by_pillow(data: bytes) -> np.ndarray | str:
    try:
        return np.asarray(open_image(data).convert("RGB"))
    except ImageError as error:
        return str(error)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_pixels_are_pillow_s(way: dict[str, Any]) -> None:
    data = encoded(**way)
    assert is_plain_jpeg(data)
    assert np.array_equal(decode_jpeg(data), by_pillow(data))


@pytest.mark.parametrize(
    "extra", [{"keep_rgb": True}, {"comment": b"by hand"}, {"xmp": XMP[29:]}, {"dpi": (300, 300)}, {"optimize": True}]
)
def test_what_changes_no_pixel_is_plain(extra: dict[str, Any]) -> None:
    data = encoded(**extra)
    assert np.array_equal(decode_jpeg(data), by_pillow(data))


def test_what_is_not_plain_is_left_to_pillow() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    png = io.BytesIO()
    picture().save(png, "PNG")
    for data in (encoded("L"), encoded("CMYK"), encoded(exif=exif), png.getvalue(), b"", b"\xff\xd8\xff", b"no image"):
        assert not is_plain_jpeg(data)
        assert decode_jpeg(data) is None
    # 12 bits, arithmetic coding, and a size that Pillow warns of.
    plain = encoded()
    frame = plain.index(b"\xff\xc0")
    for place, value in ((frame + 4, b"\x0c"), (frame + 1, b"\xc9"), (frame + 5, b"\xff\xff\xff\xff")):
        assert not is_plain_jpeg(plain[:place] + value + plain[place + len(value) :])


def damaged(chance: random.Random, data: bytes) -> bytes:
    """Cut short, with bits turned, with bytes taken out or put in, with a marker where none belongs, or zeros."""
    found, place = bytearray(data), chance.randrange(2, len(data))
    match chance.randrange(6):
        case 0:
            del found[place:]
        case 1:
            found[place] ^= 1 << chance.randrange(8)
        case 2:
            # The header is what two programs may read differently.
            found[chance.randrange(620)] ^= 1 << chance.randrange(8)
        case 3:
            del found[place : place + chance.randrange(1, 50)]
        case 4:
            found[place : place + 2] = bytes((0xFF, chance.randrange(256)))
        case 5:
            found[place : place + 100] = bytes(100)
    return bytes(found)


def disagreements(count: int) -> list[str]:
    chance = random.Random(3)
    whole = [encoded(**way) for way in WAYS]
    found = []
    for _ in range(count):
        data = damaged(chance, chance.choice(whole))
        fast = decode_jpeg(data)
        if fast is not None:
            exact = by_pillow(data)
            if isinstance(exact, str) or not np.array_equal(exact, fast):
                found.append(str(exact))
    return found


def test_damaged_files_have_pillow_s_pixels_or_pillow_s_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert disagreements(1500) == []
    # Without its strictness the decoder takes what Pillow refuses.
    careless = types.SimpleNamespace(decode_jpeg=lambda data, strict: simplejpeg.decode_jpeg(data, strict=False))
    monkeypatch.setitem(sys.modules, "simplejpeg", careless)
    assert disagreements(200)
