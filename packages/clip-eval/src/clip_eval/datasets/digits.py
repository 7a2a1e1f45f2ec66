"""Writes scikit-learn's 1,797 handwritten digits as data sets: single digits, and scenes of two whose order matters.

Real pixels that need no network: every digit is an 8 x 8 scan (UCI "Optical Recognition of Handwritten Digits", test
part, CC BY 4.0), enlarged smoothly onto a 32 x 32 canvas. 360 of the scans, 20 % of each class, are held out once and
for all; no training picture shows one of them. The set does not name its writers, so the same hand may well have
written digits on both sides of the split. What is not here: reading the folders back (`clip_eval.wds`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clip_core.errors import ConfigError
from clip_eval.datasets.digit_drawings import (
    CANVAS,
    CLASSNAMES,
    RIM,
    TEMPLATES,
    Drawing,
    Placed,
    Style,
    held_out_scenes,
    render,
    training_drawings,
)
from clip_eval.datasets.writing import Members, new_folder, png, write_about, write_lines, write_shards, write_split

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["about_digits", "build_digits", "digit_split", "load_scans", "write_digits", "write_scenes"]

_log = logging.getLogger(__name__)

_TEST_SIZE = 360
_SPLIT_SEED = 1797
_NOTES = (
    f"The split is fixed: {_TEST_SIZE} of the 1,797 scans are held out, 20 % of every digit, drawn once "
    f"with the seed {_SPLIT_SEED}. No training picture shows a held-out scan, alone or in a scene.",
    "The set does not name its writers. The same hand may have written digits on both sides of the split, "
    "so these figures say nothing about unseen handwriting.",
    "What the training pictures look like was settled while looking at the held-out digits and scenes. With another "
    "split, drawn with the seed 4242 after that, the demo's settings gave an accuracy of 0.992 and a "
    "text-to-image recall@1 of 0.965.",
)


def load_scans() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """scikit-learn's scans with a rim around each, uint8 (1797, 12, 12), 0 to 255, and their digits, int64 (1797,)."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    images = np.pad(raw.images, ((0, 0), (RIM, RIM), (RIM, RIM)))
    return np.rint(images * (255 / 16)).astype(np.uint8), raw.target.astype(np.int64)


def digit_split(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The fixed split: rows for training (1437) and held-out rows (360), both ascending, 20 % of every class."""
    # RandomState, because numpy promises that its streams never change; a Generator's may.
    order = np.random.RandomState(_SPLIT_SEED).permutation(len(labels))
    counts = np.bincount(labels, minlength=len(CLASSNAMES))
    share = counts * (_TEST_SIZE / len(labels))
    take = np.floor(share).astype(np.int64)
    take[np.argsort(take - share, kind="stable")[: _TEST_SIZE - take.sum()]] += 1
    test = np.concatenate([order[labels[order] == digit][: take[digit]] for digit in range(len(CLASSNAMES))])
    test.sort()
    return np.setdiff1d(np.arange(len(labels)), test), test


def build_digits(
    folder: str | PathLike[str],
    *,
    train_samples: int = 20_000,
    seed: int = 0,
    scene_share: float = 0.6,
    converse_share: float = 0.0,
    single_size: tuple[float, float] = (15.0, 28.0),
    scene_size: tuple[float, float] = (14.0, 16.0),
    scene_jitter: tuple[float, float] = (1.0, 3.0),
    max_angle: float = 10.0,
    ink: tuple[float, float] = (0.7, 1.0),
    paper: tuple[float, float] = (0.0, 0.15),
    samples_per_shard: int = 2_500,
    progress: bool = False,
) -> Path:
    """Writes `folder`/train (shards of png and txt), `folder`/digits and `folder`/digit_scenes; returns the folder.

    `digits` holds the 360 held-out scans, one picture each, and as its split `train` the other 1,437. `digit_scenes`
    holds 200 pictures of two held-out scans, one for each ordered pair of digits and each of "to the left of" and
    "above", so that no two captions describe the same scene. Both are the same whatever the arguments; the arguments
    shape the training pictures only:

    train_samples: how many pictures; scene_share: the part of them that are scenes; converse_share: the part of the
    scenes told the other way round ("to the right of", "below"), which makes it harder to learn which digit stands
    where, because then neither the order of the names nor the relation tells it alone; single_size, scene_size:
    smallest and largest edge of a digit in pixels; scene_jitter: furthest shift in pixels of a digit along and across
    the line that joins the two; max_angle: furthest turn in degrees; ink, paper: range of stroke and background
    brightness; seed: of all these draws. The same arguments give the same bytes. `progress` shows a bar on stderr.

    Raises `DataError` when `folder` already holds something or cannot be written, `ConfigError` for an argument out of
    its range.
    """
    if train_samples < 1 or samples_per_shard < 1:
        raise ConfigError(
            f"train_samples={train_samples}, samples_per_shard={samples_per_shard}: both must be 1 or more."
        )
    for name, part in (("scene_share", scene_share), ("converse_share", converse_share)):
        if not 0 <= part <= 1:
            raise ConfigError(f"{name}={part}: must lie between 0 and 1.")
    for name, (low, high) in (("single_size", single_size), ("scene_size", scene_size), ("ink", ink), ("paper", paper)):
        least, most = (4, CANVAS) if name.endswith("size") else (0, 1)
        if not least <= low <= high <= most:
            raise ConfigError(f"{name}={(low, high)}: must be (smallest, largest) between {least} and {most}.")
    target = Path(folder)
    scans, labels = load_scans()
    train, _ = digit_split(labels)
    by_digit = [train[labels[train] == digit] for digit in range(10)]
    random = np.random.RandomState(seed)
    style = Style(single_size, scene_size, scene_jitter, max_angle, ink, paper)
    drawings = training_drawings(random, by_digit, style, train_samples, scene_share, converse_share)

    with new_folder(target) as partial:
        (partial / "train").mkdir()
        write_shards(partial / "train", "%05d.tar", _training_members(scans, drawings, progress), samples_per_shard)
        write_digits(partial / "digits", scans, labels)
        write_scenes(partial / "digit_scenes", scans, labels)
    _log.info("wrote %d training pictures and two held-out sets to %s", train_samples, target)
    return target


def _training_members(scans: NDArray[np.uint8], drawings: list[Drawing], progress: bool) -> Iterable[Members]:
    from tqdm.auto import tqdm

    for index, drawing in enumerate(tqdm(drawings, "training pictures", unit=" pictures", disable=not progress)):
        yield {"__key__": f"s{index:07d}", "png": png(render(scans, drawing)), "txt": drawing.caption.encode()}


def write_digits(folder: Path, scans: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """Writes single digits: the held-out scans as the split `test`, the others, for a linear probe, as `train`."""
    middle = CANVAS / 2
    for split, rows in zip(("train", "test"), digit_split(labels), strict=True):
        drawings = [Drawing("", (Placed(int(scan), middle, middle, 24.0),)) for scan in rows]
        members = (
            {"__key__": f"s{index:07d}", "png": png(render(scans, drawing)), "cls": str(labels[scan]).encode()}
            for index, (scan, drawing) in enumerate(zip(rows, drawings, strict=True))
        )
        write_split(folder, members, split)
    write_lines(folder / "classnames.txt", CLASSNAMES)
    write_lines(folder / "zeroshot_classification_templates.txt", TEMPLATES)
    about = "One picture of each of the 360 held-out scans, and as the split train one of each of the other 1,437."
    write_about(folder, about_digits("Handwritten digits, held out", about))


def write_scenes(folder: Path, scans: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """Writes the held-out scenes of two digits with one caption each."""
    members = (
        {"__key__": f"s{index:07d}", "png": png(render(scans, drawing)), "txt": drawing.caption.encode()}
        for index, drawing in enumerate(held_out_scenes(labels, digit_split(labels)[1]))
    )
    write_split(folder, members)
    write_lines(folder / "dataset_type.txt", ["retrieval"])
    about = (
        "200 pictures of two held-out scans, one for each ordered pair of digits and each of 'to the left of' and "
        "'above'. No two captions describe the same scene. Drawn like the training scenes, with smaller shifts and "
        "turns."
    )
    write_about(folder, about_digits("Scenes of two digits, held out", about))


def about_digits(title: str, description: str, *notes: str, **more: Any) -> dict[str, Any]:
    """What a set made of the scans says about itself, with what holds for all of them."""
    return {
        "title": title,
        "description": description,
        "source": "scikit-learn load_digits (UCI Optical Recognition of Handwritten Digits), 1,797 scans of 8 x 8",
        "licence": "CC BY 4.0",
        "notes": [*notes, *_NOTES],
        **more,
    }
