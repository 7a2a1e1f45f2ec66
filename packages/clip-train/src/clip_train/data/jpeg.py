"""Plain JPEGs decoded by libjpeg-turbo without Pillow, to the same pixels in less time.

What is not plain, and what makes libjpeg-turbo complain, is left to Pillow, so that every picture has Pillow's pixels
or Pillow's error. What this room leaves out: resizing.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["decode_jpeg", "is_plain_jpeg"]

_SCAN = 0xDA
# Baseline, extended and progressive, in Huffman's code.
_FRAMES = (0xC0, 0xC1, 0xC2)
_FRAME_BYTES = 17
# Above this Pillow warns of bombs, or refuses.
_MOST_PIXELS = 64_000_000
# Huffman and quantisation tables, restart interval, comment, and what applications add.
_TAKEN = frozenset((0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xED), 0xEE, 0xEF))
# Where Pillow looks into what an application adds: how it begins where nothing in it changes the picture, and how many
# bytes Pillow reads in any case. Not EXIF data, since Pillow says when a picture is to be turned.
_LOOKED_INTO = {
    0xE0: (b"", 14),
    0xE1: (b"http://ns.adobe.com/xap/1.0/\0", 0),
    0xE2: (b"ICC_PROFILE\0", 14),
    0xEE: (b"Adobe", 12),
}


def decode_jpeg(data: bytes) -> npt.NDArray[np.uint8] | None:
    """(height, width, 3) RGB, as Pillow decodes it; None for what Pillow has to look at."""
    import simplejpeg

    if not is_plain_jpeg(data):
        return None
    try:
        # Strict: a warning, say of bytes that are missing, is an error.
        found: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(data, strict=True)
    except ValueError:
        return None
    return found


def is_plain_jpeg(data: bytes) -> bool:
    """Whether the header is that of a JPEG with 3 colours of 8 bits, and holds nothing that Pillow could trip over."""
    place, is_framed = 2, False
    while data.startswith(b"\xff\xd8\xff") and place + 4 <= len(data) and data[place] == 0xFF:
        marker, length = struct.unpack_from(">BH", data, place + 1)
        body, end = place + 4, place + 2 + length
        if length < 2 or end > len(data):
            return False
        if marker == _SCAN:
            return is_framed
        if marker in _FRAMES:
            if is_framed or length != _FRAME_BYTES:
                return False
            bits, height, width, colours = struct.unpack_from(">BHHB", data, body)
            if (bits, colours) != (8, 3) or height * width > _MOST_PIXELS:
                return False
            is_framed = True
        elif marker not in _TAKEN:
            return False
        elif marker in _LOOKED_INTO:
            begins, least = _LOOKED_INTO[marker]
            if length - 2 < least or not data.startswith(begins, body):
                return False
        place = end
    return False
