"""Writes the sets of the suite `quick`: one or more for every task, of scikit-learn's scans, without a network.

They show on any machine that a whole evaluation works, and what a model trained on the digits has learnt. A model that
never saw such pictures may score anything. What is not here: what the pictures show (`quick_drawings`).
"""

from __future__ import annotations

import io
import json
import logging
import tempfile
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clip_core.errors import DataError
from clip_eval.datasets.digit_drawings import (
    CANVAS,
    CLASSNAMES,
    TEMPLATES,
    Drawing,
    Placed,
    held_out_scenes,
    render,
)
from clip_eval.datasets.digits import about_digits, digit_split, load_scans, write_digits, write_scenes
from clip_eval.datasets.quick_drawings import pages, papers, riddles, scene_captions, swaps
from clip_eval.datasets.writing import new_folder, png, write_about, write_lines, write_split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    _Scans = NDArray[np.uint8]
    _Labels = NDArray[np.int64]

__all__ = ["QUICK_SETS", "build_quick", "cached_quick"]

_log = logging.getLogger(__name__)

_CACHED = "quick-1"
"""Folder in the cache; another number when the sets change."""
_PAGE_TEMPLATES = ("a page with the digit {c}", "a handwritten {c} among other digits", "digits, one of them a {c}")


def build_quick(folder: str | PathLike[str]) -> Path:
    """Writes each of `QUICK_SETS` as a folder in the `wds` layout below `folder`, 9 MB; returns `folder`.

    The same bytes every time. Raises `DataError` when `folder` already holds something or cannot be written.
    """
    scans, labels = load_scans()
    with new_folder(folder) as base:
        for name, write in QUICK_SETS.items():
            (base / name).mkdir()
            write(base / name, scans, labels)
    _log.info("wrote %d data sets to %s", len(QUICK_SETS), folder)
    return Path(folder)


def cached_quick(name: str, *, cache_dir: str | PathLike[str] | None = None) -> Path:
    """The folder of one of `QUICK_SETS` on this machine; the first call, of whichever process, writes them all.

    cache_dir: default "clip-eval" in huggingface_hub's `HF_HOME`, where fetched data sets are too. Raises `DataError`
    when it cannot be written.
    """
    if cache_dir is None:
        from huggingface_hub.constants import HF_HOME

        cache_dir = Path(HF_HOME) / "clip-eval"
    target = Path(cache_dir) / _CACHED
    if not target.is_dir():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{_CACHED}-") as place:
                made = build_quick(Path(place) / "sets")
                _move(made, target)
        except OSError as error:
            raise DataError(f"{target}: the data sets cannot be written ({error.strerror or error}).") from error
    return target / name


def _move(made: Path, target: Path) -> None:
    try:
        made.rename(target)
    except OSError:
        # Two processes may have written the same bytes; those of the first one stay.
        if not target.is_dir():
            raise


def _write_captions(folder: Path, scans: _Scans, labels: _Labels) -> None:
    """Retrieval with five captions for each picture, and the references of captioning."""
    members = []
    for scene in held_out_scenes(labels, digit_split(labels)[1]):
        first, second = (int(labels[placed.scan]) for placed in scene.digits)
        relation = "above" if " above " in scene.caption else "to the left of"
        captions = "\n".join(scene_captions(first, second, relation))
        members.append({"png": png(render(scans, scene)), "txt": f"{captions}\n".encode()})
    write_split(folder, _keyed(members))
    write_lines(folder / "dataset_type.txt", ["retrieval"])
    about = "The 200 held-out scenes of digit_scenes, each told in five ways; no caption fits another scene."
    write_about(folder, about_digits("Scenes of two digits, five captions", about))


def _write_pages(folder: Path, scans: _Scans, labels: _Labels) -> None:
    """Multilabel: which digits stand on a page."""
    members = []
    for page in pages(labels, digit_split(labels)[1]):
        present = np.zeros(len(CLASSNAMES), np.float32)
        present[list(page.present)] = 1
        members.append({"png": png(render(scans, page.drawing)), "npy": _npy(present)})
    write_split(folder, _keyed(members))
    write_lines(folder / "dataset_type.txt", ["multilabel"])
    write_lines(folder / "classnames.txt", CLASSNAMES)
    write_lines(folder / "zeroshot_classification_templates.txt", _PAGE_TEMPLATES)
    about = "200 pages with none to four different held-out digits in the four quarters of the picture."
    write_about(folder, about_digits("Pages of digits", about))


def _write_papers(folder: Path, scans: _Scans, labels: _Labels) -> None:
    """Classification with groups: paper and size beside each label."""
    members = [
        {
            "png": png(render(scans, paper.drawing)),
            "cls": str(paper.label).encode(),
            "npy": _npy(np.array([paper.paper, paper.size], np.int64)),
        }
        for paper in papers(labels, digit_split(labels)[1])
    ]
    write_split(folder, _keyed(members))
    write_lines(folder / "classnames.txt", CLASSNAMES)
    write_lines(folder / "zeroshot_classification_templates.txt", TEMPLATES)
    about = (
        "Each held-out scan on dark, grey or bright paper, small or large. The training pictures have dark paper only, "
        "so the worst group of a model trained on them says how far it carries."
    )
    write_about(folder, about_digits("Digits on three papers", about, metadata_fields=["paper", "size"]))


def _write_swaps(folder: Path, scans: _Scans, labels: _Labels) -> None:
    """Caption choice: two pictures and two captions in each example, which differ in the order only."""
    members = []
    for number, pair in enumerate(swaps(labels, digit_split(labels)[1])):
        captions = "\n".join(scene.caption for scene in pair)
        category = "above" if " above " in captions else "to the left of"
        for right, scene in enumerate(pair):
            choice = {"right": right, "example": f"swap-{number:02d}", "category": category}
            members.append(
                {
                    "png": png(render(scans, scene)),
                    "txt": f"{captions}\n".encode(),
                    "json": json.dumps(choice).encode(),
                }
            )
    write_split(folder, _keyed(members))
    write_lines(folder / "dataset_type.txt", ["caption_choice"])
    about = (
        "90 pairs of scenes in which the same two held-out scans have changed places, with the captions of both: as "
        "Winoground asks, only the order of the words tells them apart."
    )
    write_about(folder, about_digits("Swapped digits", about))


def _write_riddles(folder: Path, scans: _Scans, labels: _Labels) -> None:
    """Association: a digit's name, and which of the pictures show it."""
    test = digit_split(labels)[1]
    drawings = [Drawing("", (Placed(int(scan), CANVAS / 2, CANVAS / 2, 24.0),)) for scan in test]
    write_split(folder, _keyed([{"png": png(render(scans, drawing))} for drawing in drawings]))
    lines = []
    for riddle in riddles([int(labels[scan]) for scan in test]):
        candidates, right = ([_key(place) for place in places] for places in (riddle.candidates, riddle.right))
        lines.append(json.dumps({"cue": riddle.cue, "candidates": candidates, "right": right}))
    write_lines(folder / "test" / "associations.jsonl", lines)
    write_lines(folder / "dataset_type.txt", ["association"])
    about = "120 riddles in the form of WinoGAViL: which of 5, 6, 10 or 12 held-out scans show the digit of this name?"
    note = "In WinoGAViL people were asked what they associate; here the digit itself is what the name stands for."
    write_about(folder, about_digits("Riddles about digits", about, note))


def _npy(values: NDArray[np.float32] | NDArray[np.int64]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _key(place: int) -> str:
    return f"s{place:07d}"


def _keyed(members: list[dict[str, bytes]]) -> list[dict[str, object]]:
    return [{"__key__": _key(place), **member} for place, member in enumerate(members)]


QUICK_SETS: dict[str, Callable[[Path, NDArray[np.uint8], NDArray[np.int64]], None]] = {
    "digits": write_digits,
    "digit_scenes": write_scenes,
    "digit_captions": _write_captions,
    "digit_pages": _write_pages,
    "digit_papers": _write_papers,
    "digit_swaps": _write_swaps,
    "digit_riddles": _write_riddles,
}
"""What writes each set, by the name of its folder."""
