"""Data sets written by CLIP_benchmark and read here, and the other way round: the same images, labels, captions, names.

    python bench_layout.py --python VENV/bin/python

VENV has CLIP_benchmark 1.6.2 and what that release works with (measured: numpy 1.26.4, webdataset 0.2.86). Exit code 1
where anything differs. It measures nothing. `--write FOLDER` writes the small sets in tests/golden/clip_benchmark.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clip_eval.building import Example, Source, write_dataset
from clip_eval.wds import WdsDataset, open_dataset, read_image_bytes

_NAMES, _TEMPLATES = ("cat", "", "owl"), ("a {c}", "the {c}")
_CAPTIONS = ("one, and more", "two\nlines")
# None with U+2028, at which its reader splits.
_COUNT = 25
_DRAW = """
import hashlib, json, sys
import numpy as np
from PIL import Image
def draw(number):
    return Image.fromarray(np.random.RandomState(number).randint(0, 256, (20, 30, 3), dtype=np.uint8))
class Rows(list):
    pass
"""
_WRITE = """
from clip_benchmark.webdataset_builder import PIL_to_bytes, convert_dataset, convert_retrieval_dataset
told = json.loads(sys.argv[1])
def rows(targets):
    found = Rows((draw(number), target) for number, target in enumerate(targets))
    found.classes, found.templates = told["names"], told["templates"]
    return found
settings = {"transform": PIL_to_bytes("webp"), "max_count": 2, "verbose": False}
count, root = range(told["count"]), told["root"]
convert_dataset(rows(number % 3 for number in count), "test", root + "/classification", **settings)
vectors = (np.float32([number % 2, 1, 0]) for number in count)
convert_dataset(rows(vectors), "test", root + "/multilabel", multilabel=True, **settings)
convert_retrieval_dataset(rows(told["captions"] for _ in count), "test", root + "/retrieval", **settings)
"""
_READ = """
from clip_benchmark.datasets.builder import build_wds_dataset
def seen(image):
    return hashlib.sha256(np.asarray(image.convert("RGB")).tobytes()).hexdigest()
found = {}
for kind in ("classification", "multilabel", "retrieval"):
    data = build_wds_dataset(kind, transform=seen, split="test", data_dir=sys.argv[1] + "/" + kind)
    rows = [[image, np.asarray(target).tolist()] for image, target in data]
    found[kind] = {"rows": rows, "names": data.classes, "templates": data.templates}
print("FOUND" + json.dumps(found))
"""


def _draw(number: int) -> Image.Image:
    return Image.fromarray(np.random.RandomState(number).randint(0, 256, (20, 30, 3), dtype=np.uint8))


def _seen(data: bytes) -> str:
    return hashlib.sha256(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).tobytes()).hexdigest()


def _run(python: str, script: str, *words: str) -> str:
    done = subprocess.run([python, "-c", _DRAW + script, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def _expected(kind: str) -> dict[str, Any]:
    targets: dict[str, list[Any]] = {
        "classification": [number % 3 for number in range(_COUNT)],
        "multilabel": [[number % 2, 1, 0] for number in range(_COUNT)],
        "retrieval": [[caption.replace("\n", "\\n") for caption in _CAPTIONS]] * _COUNT,
    }
    images = [hashlib.sha256(np.asarray(_draw(number)).tobytes()).hexdigest() for number in range(_COUNT)]
    rows = [[image, target] for image, target in zip(images, targets[kind], strict=True)]
    named = kind != "retrieval"
    return {
        "rows": rows,
        "names": list(_NAMES) if named else None,
        "templates": list(_TEMPLATES) if named else None,
    }


def _read(data: WdsDataset) -> dict[str, Any]:
    targets: list[Any] = list(data.labels)
    if data.kind == "multilabel":
        targets = [[int(label in present) for label in range(len(data.classnames))] for present in data.present]
    if data.kind == "retrieval":
        targets = [list(captions) for captions in data.captions]
    images = [_seen(read_image_bytes(sample)[0]) for sample in data.samples]
    return {
        "rows": [[image, target] for image, target in zip(images, targets, strict=True)],
        "names": list(data.classnames) or None,
        "templates": list(data.templates) or None,
    }


def _write_ours(root: Path) -> None:
    for kind in ("classification", "multilabel", "retrieval"):
        examples = [
            Example(image=_draw(number), label=number % 3, present=[1] + [0] * (number % 2), captions=_CAPTIONS)
            for number in range(_COUNT)
        ]
        named = {} if kind == "retrieval" else {"classnames": _NAMES, "templates": _TEMPLATES}
        write_dataset(root / kind, Source(kind=kind, examples=examples, **named), max_count=2)  # type: ignore[arg-type]


def main() -> int:
    """0 where both readers see what was written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="interpreter that has CLIP_benchmark")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="only let CLIP_benchmark write two samples there")
    arguments = parser.parse_args()
    python, wrong = arguments.python, 0
    told: dict[str, Any] = {"names": _NAMES, "templates": _TEMPLATES, "captions": _CAPTIONS}
    if arguments.write is not None:
        _run(python, _WRITE, json.dumps({**told, "root": str(arguments.write), "count": 2}))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        theirs, ours = Path(folder) / "theirs", Path(folder) / "ours"
        _run(python, _WRITE, json.dumps({**told, "root": str(theirs), "count": _COUNT}))
        _write_ours(ours)
        peer = json.loads(_run(python, _READ, str(ours)).rpartition("FOUND")[2])
        for kind in ("classification", "multilabel", "retrieval"):
            for what, found in (
                ("theirs, read here", _read(open_dataset(theirs / kind))),
                ("ours, read there", peer[kind]),
            ):
                equal = found == _expected(kind)
                wrong += not equal
                print(f"{kind:15} {what:18} {len(found['rows'])} samples {'equal' if equal else 'DIFFERENT'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
