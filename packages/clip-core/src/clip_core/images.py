"""Opening an image from whatever holds it, decoded in full, or an error that says what is wrong with which file."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from clip_core.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["FORMATS", "open_image"]

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP")
"""What is opened. Pillow reads more, but hands some of it (EPS) to other programs, whatever the file is called."""


def open_image(source: str | os.PathLike[str] | bytes | Image, *, name: str | None = None) -> Image:
    """A PIL image with its pixels decoded, in the mode of the file, from a path, encoded bytes or a PIL image.

    Args:
        source: where the image is.
        name: what to call it in errors, say "00000.tar:s0000012.png" for bytes; default the path.

    Raises:
        ImageError: the file is missing, is in none of `FORMATS`, is cut short, or is larger than Pillow's
            decompression bomb limit; names the file and the reason.
    """
    import PIL.Image

    if isinstance(source, (str, os.PathLike)):
        label = name or os.fspath(source)
    elif isinstance(source, bytes):
        label = name or f"of {len(source)} bytes"
    elif isinstance(source, PIL.Image.Image):
        label = name or getattr(source, "filename", "") or f"of mode {source.mode} and size {source.size}"
    else:
        raise ImageError(f"Cannot open {type(source).__name__} as an image; allowed: a path, bytes or a PIL image.")
    try:
        # Decoding is lazy in Pillow; a damaged body shows only in load().
        if isinstance(source, PIL.Image.Image):
            source.load()
            return source
        PIL.Image.init()
        known = [form for form in FORMATS if form in PIL.Image.OPEN]  # AVIF is not in every build
        with PIL.Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=known) as image:
            image.load()
            return image
    except FileNotFoundError as error:
        raise ImageError(f"Cannot open image {label}: there is no such file.") from error
    except PIL.UnidentifiedImageError as error:
        raise ImageError(
            f"Cannot open image {label}: its header is damaged, or it is none of {', '.join(FORMATS)}."
        ) from error
    except MemoryError:
        raise
    except Exception as error:
        # Pillow's decoders raise whatever damaged bytes make them trip over.
        raise ImageError(f"Cannot open image {label}: {error}") from error
