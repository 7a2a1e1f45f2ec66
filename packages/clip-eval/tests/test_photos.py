"""The set of real pictures (`clip_eval.datasets.photos`)."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_core.errors import ConfigError
from clip_eval.catalogue import find
from clip_eval.datasets.photos import CAPTIONS, build_photos
from clip_eval.suites import suite
from clip_eval.wds import open_dataset, read_image_bytes


def test_twenty_pictures_with_their_captions(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    dataset = open_dataset(build_photos(tmp_path / "sets") / "photos")
    assert (dataset.kind, len(dataset.samples)) == ("retrieval", find("photos").test)
    assert [caption for (caption,) in dataset.captions] == list(CAPTIONS.values())
    assert len(set(dataset.captions)) == 20
    pictures = []
    for sample in dataset.samples:
        image = Image.open(io.BytesIO(read_image_bytes(sample)[0]))
        assert image.mode == "RGB"
        assert max(image.size) <= 512
        pixels = np.asarray(image)
        assert pixels.std() > 5  # a picture, not an empty sheet
        pictures.append(pixels.tobytes())
    assert len(set(pictures)) == 20
    # The silhouette is black on white.
    horse = np.asarray(Image.open(io.BytesIO(read_image_bytes(dataset.samples[list(CAPTIONS).index("horse")])[0])))
    assert (horse[0, 0].min(), horse.min()) == (255, 0)


def test_without_scikit_image_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    with pytest.raises(ConfigError, match=r"pip install 'clip-eval\[photos\]'"):
        build_photos(tmp_path / "sets")
    assert not list(tmp_path.iterdir())


def test_it_is_no_part_of_the_quick_suite() -> None:
    assert "photos" not in suite("quick").datasets
    assert find("photos").build == "clip-eval build photos"
