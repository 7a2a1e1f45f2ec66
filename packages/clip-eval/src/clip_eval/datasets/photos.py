"""Writes twenty real pictures with a caption each: scikit-learn's two and eighteen of scikit-image, without a network.

A model trained on pictures from the web finds nearly every one; where it does not, its preprocessing or its tokenizer
is likely wrong. Twenty pictures are too few to rank models. Needs `pip install 'clip-eval[photos]'`; the pictures are
read from the installed libraries, which have them from the owners named in `scikit-image`'s documentation.
"""

from __future__ import annotations

import logging
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from clip_core.errors import ConfigError
from clip_eval.datasets.writing import new_folder, png, write_about, write_lines, write_split

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CAPTIONS", "build_photos"]

_log = logging.getLogger(__name__)

CAPTIONS = {
    "astronaut": "a smiling astronaut in an orange suit in front of a flag and a space shuttle",
    "brick": "a wall of narrow bricks",
    "camera": "a man in a dark coat looking through a camera on a tripod",
    "cell": "a single bright cell under a microscope",
    "chelsea": "the face of a ginger cat",
    "coffee": "a cup of espresso on a red saucer with a spoon",
    "coins": "rows of ancient coins",
    "grass": "short grass seen from above",
    "gravel": "gravel, many small stones",
    "horse": "the black silhouette of a horse",
    "hubble_deep_field": "hundreds of distant galaxies in deep space",
    "immunohistochemistry": "stained tissue under a microscope, brown glands and blue cells",
    "moon": "craters on the surface of the moon",
    "stereo_motorcycle": "a red motorcycle in a workshop",
    "page": "a page of printed text with a heading about segmentation",
    "retina": "the retina of an eye with its blood vessels",
    "rocket": "a rocket on its launch pad at night",
    "text": "mathematical formulas written by hand",
    "china.jpg": "a Chinese pagoda above a lake",
    "flower.jpg": "an orange dahlia in bloom",
}
"""Name in `skimage.data` or file of scikit-learn -> our caption."""
_EDGE = 512


def build_photos(folder: str | PathLike[str]) -> Path:
    """Writes the retrieval set `folder`/photos in the `wds` layout, 20 pictures, 5 MB; returns `folder`.

    Raises `ConfigError` without scikit-image, `DataError` when `folder` already holds something or cannot be written.
    """
    try:
        import skimage.data
    except ImportError as error:
        raise ConfigError("The photos are scikit-image's: pip install 'clip-eval[photos]'.") from error
    from sklearn.datasets import load_sample_image

    members = []
    for number, (name, caption) in enumerate(CAPTIONS.items()):
        picture = load_sample_image(name) if name.endswith(".jpg") else getattr(skimage.data, name)()
        # The motorcycle is two views and their distances.
        pixels = picture[0] if isinstance(picture, tuple) else picture
        members.append({"__key__": f"s{number:07d}", "png": png(_drawn(pixels)), "txt": f"{caption}\n".encode()})
    with new_folder(folder) as base:
        (base / "photos").mkdir()
        write_split(base / "photos", members)
        write_lines(base / "photos" / "dataset_type.txt", ["retrieval"])
        about = {
            "title": "Twenty photos",
            "description": "Real pictures with one caption each, to see that a model is wired rightly.",
            "source": "scikit-image's data and scikit-learn's sample images",
            "licence": "scikit-image names each owner, most are CC0 or public domain; scikit-learn's two are CC BY 2.0",
            "notes": [
                "The captions were written for this package while looking at the pictures.",
                "Twenty pictures are too few to rank models; the pictures are famous and may be in any training set.",
            ],
        }
        write_about(base / "photos", about)
    _log.info("wrote %d photos to %s", len(members), folder)
    return Path(folder)


def _drawn(pixels: NDArray[np.uint8] | NDArray[np.bool_]) -> Image.Image:
    """RGB, its longer edge at most 512 pixels."""
    array = pixels.astype(np.uint8) * 255 if pixels.dtype == np.bool_ else pixels
    image = Image.fromarray(array).convert("RGB")
    image.thumbnail((_EDGE, _EDGE), Image.Resampling.LANCZOS)
    return image
