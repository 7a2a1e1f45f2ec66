"""Opening an image from whatever holds it, decoded in full, or an error that says what is wrong with which file.

Pixels keep the orientation in which the file stores them, as they do in every peer, unless `rotate=True` is asked for.
What this room leaves out: sizes, colours and numbers (`preprocess`).
"""

from __future__ import annotations

import io
import logging
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clip_core.errors import ImageError

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.Image import Image

    ImageSource = str | os.PathLike[str] | bytes | Image | npt.NDArray[Any] | torch.Tensor

__all__ = ["FORMATS", "open_image"]

_log = logging.getLogger(__name__)

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP")
"""What is opened. Pillow reads more, but hands some of it (EPS) to other programs, whatever the file is called."""

_ORIENTATION = 0x0112  # the tag of Exif 2.3
_said: set[str] = set()  # what this process has warned of


def open_image(source: ImageSource, *, name: str | None = None, rotate: bool = False) -> Image:
    """A PIL image with its pixels decoded, in the mode of the file.

    Args:
        source: a path, encoded bytes, a PIL image, a uint8 array (height, width), (height, width, 1), (height, width,
            3) or (height, width, 4), or a uint8 tensor (1, height, width), (3, height, width) or (4, height, width).
            Three channels are RGB, four RGBA.
        name: what to call it in errors, say "00000.tar:s0000012.png" for bytes; default the path.
        rotate: turn the picture upright where its EXIF orientation says that the camera was held another way. The
            default leaves the pixels as they are stored, as open_clip, torchvision and timm do, and logs a warning at
            the first such picture. Arrays and tensors have no orientation.

    Raises:
        ImageError: the file is missing, is in none of `FORMATS`, is cut short, is empty, or is larger than Pillow's
            decompression bomb limit, or the array has another dtype or shape; names the file and the reason.
    """
    import PIL.Image

    if isinstance(source, (str, os.PathLike)):
        label = name or os.fspath(source)
    elif isinstance(source, bytes):
        label = name or f"of {len(source)} bytes"
    elif isinstance(source, PIL.Image.Image):
        label = name or getattr(source, "filename", "") or f"of mode {source.mode} and size {source.size}"
    elif isinstance(source, (np.ndarray, torch.Tensor)):
        label = name or f"of shape {tuple(source.shape)}"
        return _of_pixels(source, label)
    else:
        raise ImageError(
            f"Cannot open {type(source).__name__} as an image; allowed: a path, bytes, a PIL image, a uint8 array "
            "(height, width, 3) or a uint8 tensor (3, height, width)."
        )
    try:
        image = _decode(source, name)
        if rotate:
            from PIL import ImageOps

            image = ImageOps.exif_transpose(image)
        elif "rotation" not in _said and "exif" in image.info and image.getexif().get(_ORIENTATION, 1) != 1:
            _said.add("rotation")
            _log.warning(
                "image %s has an EXIF orientation, which is ignored here as in open_clip; open_image(..., rotate=True) "
                "turns it upright. Other images are not checked.",
                label,
            )
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
    if 0 in image.size:
        raise ImageError(f"Cannot open image {label}: it has {image.width} x {image.height} pixels.")
    return image


def _decode(source: str | os.PathLike[str] | bytes | Image, name: str | None) -> Image:
    import PIL.Image

    # Decoding is lazy in Pillow; a damaged body shows only in load().
    if isinstance(source, PIL.Image.Image):
        source.load()
        return source
    PIL.Image.init()
    known = [form for form in FORMATS if form in PIL.Image.OPEN]  # AVIF is not in every build
    with PIL.Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=known) as image:
        image.load()
        if name:
            image.filename = name  # so that whoever complains of this image later can name it
        return image


def _of_pixels(source: npt.NDArray[Any] | torch.Tensor, label: str) -> Image:
    """An array (height, width[, channels]) or a tensor (channels, height, width) of uint8 as an image."""
    import PIL.Image

    is_tensor = isinstance(source, torch.Tensor)
    kind, cast = ("tensor", "to(torch.uint8)") if is_tensor else ("array", "astype(np.uint8)")
    dtype = str(source.dtype).removeprefix("torch.")
    if dtype != "uint8":
        # A float picture may run from 0 to 1, from 0 to 255 or be normalised already; a guess would go unnoticed.
        raise ImageError(
            f"Cannot open the {kind} {label} as an image: its dtype is {dtype}; allowed: uint8, 0 to 255. For values "
            f"from 0 to 1: (x * 255).round().{cast}."
        )
    if isinstance(source, torch.Tensor):
        if source.ndim != 3 or source.shape[0] not in (1, 3, 4):
            hint = " Use x.permute(2, 0, 1)." if source.ndim == 3 and source.shape[-1] in (1, 3, 4) else ""
            raise ImageError(
                f"Cannot open the tensor {label} as an image; allowed: (3, height, width), or 1 or 4 in place of 3."
                f"{hint}"
            )
        source = source.detach().permute(1, 2, 0).cpu().numpy()
    elif source.ndim == 2:
        source = source[:, :, None]
    elif source.ndim != 3 or source.shape[-1] not in (1, 3, 4):
        hint = " Use x.transpose(1, 2, 0)." if source.ndim == 3 and source.shape[0] in (1, 3, 4) else ""
        raise ImageError(
            f"Cannot open the array {label} as an image; allowed: (height, width), or (height, width, 3), or 1 or 4 in "
            f"place of 3.{hint}"
        )
    if 0 in source.shape:
        raise ImageError(f"Cannot open the {kind} {label} as an image: it has no pixels.")
    pixels = np.ascontiguousarray(source)
    return PIL.Image.fromarray(pixels[:, :, 0] if pixels.shape[-1] == 1 else pixels)
