"""Opening images, and the errors that name the file and the reason."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from clip_core import open_image
from clip_core.errors import ImageError


def encoded(image: PIL.Image.Image, form: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def test_path_bytes_and_image_give_the_same_pixels(tmp_path: Path, photo: PIL.Image.Image) -> None:
    data = encoded(photo, "PNG")
    (tmp_path / "a.png").write_bytes(data)
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), data, photo):
        assert np.array_equal(np.asarray(open_image(source)), np.asarray(photo))


def test_what_cannot_be_opened_is_named_with_its_reason(tmp_path: Path, photo: PIL.Image.Image) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "cut.jpg").write_bytes(encoded(photo)[:-4000])
    for source, message in [
        (tmp_path / "none.jpg", "none.jpg: there is no such file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "text.jpg", "text.jpg: its header is damaged, or it is none of AVIF, BMP"),
        (tmp_path / "cut.jpg", "cut.jpg: .*truncated"),
        (b"", "of 0 bytes: its header is damaged"),
    ]:
        with pytest.raises(ImageError, match=message):
            open_image(source)
    with pytest.raises(ImageError, match="0.tar:s1.jpg: its header is damaged"):
        open_image(b"zz", name="0.tar:s1.jpg")
    with pytest.raises(ImageError, match="Cannot open int as an image"):
        open_image(3)  # type: ignore[arg-type]


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch, photo: PIL.Image.Image) -> None:
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match="exceeds limit"):
        open_image(encoded(photo))


def test_a_file_that_needs_another_program_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = tmp_path / "ran"
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {ran}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(ImageError, match="holiday.jpg: its header is damaged, or it is none of"):
        open_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", name="holiday.jpg")
    assert not ran.exists()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "TGA", "JPEG2000"])
def test_damaged_bytes_raise_nothing_else(form: str, photo: PIL.Image.Image) -> None:
    data = encoded(photo.resize((40, 30)), form)
    random = np.random.default_rng(0)
    for _ in range(150):
        changed = bytearray(data)
        for place in random.integers(0, len(data), 8):
            changed[place] = random.integers(0, 256)
        with contextlib.suppress(ImageError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd headers; what counts here is what it raises
            open_image(bytes(changed))
