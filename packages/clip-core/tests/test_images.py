"""Opening images, and the errors that name the file and the reason."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

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


def test_arrays_that_are_no_8_bit_picture_are_refused_with_the_way_to_one() -> None:
    for source, message in [
        (np.zeros((4, 5, 3), np.float32), r"dtype is float32; allowed: uint8, .* \(x \* 255\).round\(\).astype"),
        (torch.zeros(3, 4, 5), r"the tensor of shape \(3, 4, 5\) .* float32; .* \(x \* 255\).round\(\).to\(torch"),
        (np.zeros((3, 4, 5), np.uint8), r"Use x.transpose\(1, 2, 0\)"),
        (torch.zeros(9, 5, 3, dtype=torch.uint8), r"Use x.permute\(2, 0, 1\)"),
        (torch.zeros(2, 3, 4, 5, dtype=torch.uint8), r"allowed: \(3, height, width\)"),
        (np.zeros((4, 5, 2), np.uint8), r"allowed: \(height, width\)"),
        (np.zeros((0, 5, 3), np.uint8), "it has no pixels"),
        (PIL.Image.new("RGB", (0, 5)), "it has 0 x 5 pixels"),
    ]:
        with pytest.raises(ImageError, match=message):
            open_image(source)


def test_rotation_is_warned_of_once_and_done_on_request(photo, caplog, monkeypatch) -> None:
    monkeypatch.setattr("clip_core.images._said", set())
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # held upright, stored lying on its side
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", exif=exif)
    for _ in range(2):
        stored = open_image(buffer.getvalue(), name="a.jpg")
    assert stored.size == photo.size
    assert [record.getMessage()[:40] for record in caplog.records] == ["image a.jpg has an EXIF orientation, whi"]
    upright = open_image(buffer.getvalue(), rotate=True)
    assert np.array_equal(np.asarray(upright), np.rot90(np.asarray(stored), -1))
    assert np.array_equal(np.asarray(open_image(encoded(photo), rotate=True)), np.asarray(open_image(encoded(photo))))


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
