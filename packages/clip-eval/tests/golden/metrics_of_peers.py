"""Made-up scores for `metrics_of_peers.json`; bench/metrics_of_peers.py asks the peers about them.

numpy keeps the streams of RandomState, so the test draws the same ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SEEDS = (0, 1, 2)


def draw(seed: int) -> dict[str, Any]:
    """Scores without ties of 240 images and 7 classes, the last one without images, labels, tags and metadata."""
    random = np.random.RandomState(seed)
    labels = random.randint(6, size=240)
    scores = random.randn(240, 7)
    scores[np.arange(240), labels] += 1.2
    tags = random.rand(240, 7) < np.linspace(0.05, 0.5, 7)
    tags[:, 3] &= seed != 2  # one class without positives
    regions = random.choice(6, size=240, p=[0.3, 0.3, 0.2, 0.15, 0.03, 0.02])
    years = random.randint(4, size=240)
    races = random.randint(7, size=240)
    faces = {
        "races": races,
        "white": (races != 1).astype(np.int64),
        "genders": random.randint(2, size=240),
        "guesses": np.stack([random.randint(count, size=240) for count in (7, 2, 7, 20)], axis=1),
    }
    return {"scores": scores, "labels": labels, "tags": tags, "regions": regions, "years": years, **faces}
