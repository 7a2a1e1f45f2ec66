"""Made-up features of retrieval and caption choice, the same for the peers and for the test that compares with them.

numpy keeps the streams of RandomState. Without `tied` there are no ties; with it features are copied, and the last
image has no caption.
"""

from __future__ import annotations

from typing import Any

import numpy as np

IMAGES, CAPTIONS, WIDTH = 60, 170, 16


def draw(seed: int, *, tied: bool) -> dict[str, Any]:
    """Features of length 1, float32, of images, of their captions in the images' order, and the captions' images."""
    random = np.random.RandomState(seed)
    images = random.randn(IMAGES, WIDTH)
    extra = CAPTIONS - IMAGES
    owners = np.sort(np.concatenate([np.arange(IMAGES), random.randint(IMAGES, size=extra)]))
    if tied:
        images[30:50] = images[:20]
        owners = owners[owners < IMAGES - 1]
    texts = images[owners] + 1.5 * random.randn(len(owners), WIDTH)
    if tied:
        texts[1::3] = texts[::3][: len(texts[1::3])]
    return {"images": _unit(images), "texts": _unit(texts), "owners": owners}


def draw_choices(seed: int, *, tied: bool) -> dict[str, Any]:
    """Winoground's kind: features (E, 2, D) of two images and two captions in each of 100 examples."""
    random = np.random.RandomState(100 + seed)
    images = random.randn(100, 2, WIDTH)
    texts = images + 1.5 * random.randn(100, 2, WIDTH)
    if tied:
        texts[::4, 1] = texts[::4, 0]
        images[1::4, 1] = images[1::4, 0]
    return {"images": _unit(images), "texts": _unit(texts)}


def _unit(features: np.ndarray) -> np.ndarray:
    return (features / np.linalg.norm(features, axis=-1, keepdims=True)).astype(np.float32)
