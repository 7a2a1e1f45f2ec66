"""How large an image is, from its first bytes, before anything is decoded: a guard against bombs of pixels.

What this room leaves out: decoding.
"""

from __future__ import annotations

import io
import struct

__all__ = ["image_size"]

# JPEG markers that state the size: start of frame of any coding, without the tables DHT, JPG and DAC.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def image_size(data: bytes) -> tuple[int, int] | None:
    """Width and height as the header states them; None where no header can be read, which decoding will find out."""
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        return width, height
    if data.startswith(b"\xff\xd8"):
        found = _jpeg_size(data)
        if found is not None:
            return found
    return _pil_size(data)


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # padding
            place += 1
        elif marker in _FRAMES:
            height, width = struct.unpack(">HH", data[place + 5 : place + 9])
            return width, height
        else:
            place += 2 + struct.unpack(">H", data[place + 2 : place + 4])[0]
    return None


def _pil_size(data: bytes) -> tuple[int, int] | None:
    import PIL.Image

    try:
        # PIL's own limit is an exception of its own here, and its sizes are the header's.
        with PIL.Image.open(io.BytesIO(data)) as image:
            return image.size
    except PIL.Image.DecompressionBombError:
        return 1 << 30, 1 << 30
    except Exception:
        return None
