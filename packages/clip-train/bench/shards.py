"""Shards that the benches of reading and training share: photographs of natural size with captions of natural length.

Each sample is a part of one of the photographs that scikit-image and scikit-learn bring along, 256 to 512 pixels wide
and high, brighter or darker, with a coloured shape in it, as a JPEG of 33 kB on average. Its caption has 5 to 25 words,
13 on average, and names the photograph, the shape, its colour and often its place, so there is something to learn.
"""

from __future__ import annotations

import functools
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageEnhance

__all__ = ["write_shards"]

_SKIMAGE = {
    "astronaut": "an astronaut in an orange suit",
    "chelsea": "a cat",
    "coffee": "a cup of coffee",
    "hubble_deep_field": "far galaxies",
    "immunohistochemistry": "tissue under a microscope",
    "retina": "the retina of an eye",
    "rocket": "a rocket at night",
    "grass": "short grass",
    "gravel": "gravel",
    "brick": "a wall of bricks",
}
_SKLEARN = {"china.jpg": "a chinese temple", "flower.jpg": "a pink flower"}
_COLOURS = {
    "red": (214, 40, 40),
    "green": (46, 160, 67),
    "blue": (38, 84, 200),
    "yellow": (240, 200, 30),
    "white": (245, 245, 245),
    "black": (15, 15, 15),
}
_SHAPES = ("disc", "square", "triangle", "ring", "bar")
_PLACES = {
    "in the middle": (0.5, 0.5),
    "at the top left": (0.28, 0.28),
    "at the top right": (0.72, 0.28),
    "at the bottom left": (0.28, 0.72),
    "at the bottom right": (0.72, 0.72),
}
_BEFORE = ("", "", "", "a photo of ", "here we see ", "taken on our last day: ")
_BETWEEN = ("a {shape} on {photo}", "{shape} {place}, {photo}", "{photo} with {size} {shape} {place}")
_AFTER = ("", "", "", ", close up", ", printed and scanned again", ", from the collection of a museum")


@functools.cache
def photographs() -> tuple[tuple[str, PIL.Image.Image], ...]:
    """What there is to cut from, and how captions call it."""
    import skimage.data
    from sklearn.datasets import load_sample_image

    found = [(words, getattr(skimage.data, name)()) for name, words in _SKIMAGE.items()]
    found += [(words, load_sample_image(name)) for name, words in _SKLEARN.items()]
    images = []
    for words, pixels in found:
        image = PIL.Image.fromarray(pixels).convert("RGB")
        # At least 640 pixels, so that a part of 512 is a part.
        factor = max(1.0, 640 / min(image.size))
        images.append((words, image.resize((round(image.width * factor), round(image.height * factor)))))
    return tuple(images)


def make_sample(random: np.random.Generator, scale: float = 1.0) -> tuple[bytes, str]:
    """A JPEG of 256 to 512 pixels times `scale` on a side, and its caption."""
    called, photograph = photographs()[random.integers(len(photographs()))]
    width, height = (int(size) for size in random.integers(256, 513, 2))
    left = int(random.integers(photograph.width - width + 1))
    top = int(random.integers(photograph.height - height + 1))
    image = photograph.crop((left, top, left + width, top + height))
    if scale != 1:
        image = image.resize((round(width * scale), round(height * scale)))
        width, height = image.size
    image = PIL.ImageEnhance.Brightness(image).enhance(random.uniform(0.7, 1.2))
    colour, shape, place = (_pick(random, tuple(choice)) for choice in (_COLOURS, _SHAPES, _PLACES))
    size = random.uniform(0.12, 0.2) * min(width, height)
    across, down = _PLACES[place]
    _draw(PIL.ImageDraw.Draw(image), shape, _COLOURS[colour], across * width, down * height, size)
    data = io.BytesIO()
    image.save(data, format="JPEG", quality=int(random.integers(80, 96)))
    caption = _pick(random, _BEFORE) + _pick(random, _BETWEEN) + _pick(random, _AFTER)
    extent = "small" if size < 0.16 * min(width, height) else "large"
    words = {"photo": called, "shape": f"{colour} {shape}", "place": place, "size": f"a {extent}"}
    return data.getvalue(), caption.format(**words)


def _pick(random: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[random.integers(len(choices))]


def _draw(
    draw: PIL.ImageDraw.ImageDraw, shape: str, colour: tuple[int, int, int], x: float, y: float, size: float
) -> None:
    box = (x - size, y - size, x + size, y + size)
    if shape == "disc":
        draw.ellipse(box, fill=colour)
    elif shape == "square":
        draw.rectangle(box, fill=colour)
    elif shape == "triangle":
        draw.polygon([(x, y - size), (x - size, y + size), (x + size, y + size)], fill=colour)
    elif shape == "ring":
        draw.ellipse(box, outline=colour, width=max(3, round(size / 3)))
    else:
        draw.rectangle((x - size, y - size / 3, x + size, y + size / 3), fill=colour)


def write_shards(
    folder: Path, samples: int, *, shards: int = 8, seed: int = 0, scale: float = 1.0
) -> tuple[str, dict[str, Any]]:
    """Write `shards` webdataset tars of JPEGs and captions; their braced path, and what is in them.

    The same arguments give the same samples. `scale` makes images smaller than their 256 to 512 pixels.
    """
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    sizes: list[int] = []
    words: list[int] = []
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for number in range(shard * samples // shards, (shard + 1) * samples // shards):
                image, caption = make_sample(random, scale)
                sizes.append(len(image))
                words.append(len(caption.split()))
                for extension, data in (("jpg", image), ("txt", caption.encode())):
                    member = tarfile.TarInfo(f"{number:08d}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    about = {
        "samples": samples,
        "shards": shards,
        "kilobytes per image": round(sum(sizes) / len(sizes) / 1000, 1),
        "words per caption": round(sum(words) / len(words), 1),
        "fewest and most words": [min(words), max(words)],
    }
    return str(folder / f"{{{0:05d}..{shards - 1:05d}}}.tar"), about
