"""Opening images, and the errors that name the file and the reason."""

from __future__ import annotations

import io
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
        (tmp_path / "text.jpg", "text.jpg: not a format that Pillow reads"),
        (tmp_path / "cut.jpg", "cut.jpg: .*truncated"),
        (b"", "of 0 bytes: not a format"),
    ]:
        with pytest.raises(ImageError, match=message):
            open_image(source)
    with pytest.raises(ImageError, match="0.tar:s1.jpg: not a format"):
        open_image(b"zz", name="0.tar:s1.jpg")
    with pytest.raises(ImageError, match="Cannot open int as an image"):
        open_image(3)  # type: ignore[arg-type]


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch, photo: PIL.Image.Image) -> None:
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match="exceeds limit"):
        open_image(encoded(photo))
