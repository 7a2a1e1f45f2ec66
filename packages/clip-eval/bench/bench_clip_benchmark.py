"""The same commands to CLIP_benchmark and to clip-eval: seconds of both, where ours go, and whether the figures agree.

    python bench_clip_benchmark.py --python VENV/bin/python

evaluates one set of pictures (made here from scikit-learn's two photos) with several prompt sets and as a retrieval
set, with the same random weights in float32, on the same CPU, one after the other. VENV has CLIP_benchmark 1.6.2,
open_clip_torch 3.3.0, and what that release works with (numpy 1.26.4, webdataset 0.2.86, scikit-learn 1.4.2,
pycocoevalcap 1.2, requests). The exit code is 1 where a figure differs or where we take more than a third of the time.

Measured on two cores that other work kept busy, ViT-B-32, 96 pictures, four prompt sets and retrieval, one thread:
theirs 586.5 s, ours 190.1 s (0.32), all figures equal; classification 396.2 and 148.7 s, retrieval 190.3 and 41.4 s.
Of ours, in seconds: 75.0 encoding images, 1.2 waiting for pictures, 17.2 encoding texts, 2.0 keeping and finding
features, 0.2 metrics; the rest is starting twice and reading the weights.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

_THEIRS = "import sys; from clip_benchmark.cli import main; sys.exit(main())"
_OURS = "import sys; from clip_eval.cli import main; sys.exit(main())"
_WEIGHTS = """
import sys, torch, open_clip
torch.manual_seed(0)
torch.save(open_clip.create_model(sys.argv[1]).state_dict(), sys.argv[2])
"""
_CLASSES = ("roof", "sky", "petal", "leaf", "shadow", "column", "tile", "stem", "wall", "blossom")
_TEMPLATES = (
    "a photo of a {c}.",
    "a blurry photo of the {c}.",
    "a close-up of one {c}.",
    "{c}",
    "a low resolution picture of a {c}.",
    "a picture that shows a {c} and little else, taken by an amateur.",
)


def make_pictures(home: Path, count: int, sets: int) -> list[str]:
    """One shard with classes and captions, as `prompts0` ... with different templates, and as `pairs`."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    draw = np.random.default_rng(0)
    shard = home / "0.tar"
    with tarfile.open(shard, "w") as tar:
        for number in range(count):
            left, top = (int(draw.integers(0, 160)) for _ in range(2))
            photo = photos[number % 2].crop((left, top, left + 480, top + 260)).resize((500, 375))
            stream = io.BytesIO()
            photo.save(stream, "JPEG", quality=90)
            name = _CLASSES[number % len(_CLASSES)]
            captions = [
                f"{name} number {number}, as the {word} of us saw it"
                for word in ("first", "second", "third", "last", "one")
            ]
            members = {
                "cls": str(number % len(_CLASSES)).encode(),
                "jpg": stream.getvalue(),
                "txt": "\n".join(captions).encode(),
            }
            for extension, data in members.items():
                info = tarfile.TarInfo(f"s{number:07}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    names = [f"prompts{number}" for number in range(sets)]
    for number, name in enumerate([*names, "pairs"]):
        folder = home / name
        (folder / "test").mkdir(parents=True)
        os.link(shard, folder / "test" / "0.tar")
        (folder / "test" / "nshards.txt").write_text("1\n")
        (folder / "dataset_type.txt").write_text("retrieval\n" if name == "pairs" else "classification\n")
        if name != "pairs":
            chosen = (_TEMPLATES * 2)[number : number + 4]
            (folder / "zeroshot_classification_templates.txt").write_text("\n".join(chosen) + "\n")
            (folder / "classnames.txt").write_text("\n".join(_CLASSES) + "\n")
    return names


def run(
    python: str, code: str, names: list[str], task: str, home: Path, weights: Path, given: Any, whose: str
) -> tuple[float, float]:
    """Seconds of one command line: by the clock, and of the processor, which others on the machine do not move."""
    output = str(home / f"{whose}-{{dataset}}.json")
    command = [python, "-c", code, "eval", "--dataset", *(f"wds/{name}" for name in names), "--task", task]
    command += ["--dataset_root", f"{home}/{{dataset_cleaned}}", "--model", given.model, "--pretrained", str(weights)]
    command += ["--output", output, "--no_amp", "--batch_size", str(given.batch_size), "--num_workers", "1"]
    command += ["--recall_k", "1", "5", "10", "--feature_root", str(home / f"features-{whose}")]
    start, before = time.perf_counter(), os.times()
    subprocess.run(command, check=True, stdout=sys.stderr, cwd=home)
    seconds, after = time.perf_counter() - start, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, used


def main() -> int:
    """0 where the figures agree and ours take a third of the time at most."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True, help="interpreter that has CLIP_benchmark")
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--count", type=int, default=192, help="pictures (%(default)s)")
    parser.add_argument("--sets", type=int, default=3, help="prompt sets of four prompts for ten classes (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32)
    given = parser.parse_args()
    total, used, wrong = {"theirs": 0.0, "ours": 0.0}, {"theirs": 0.0, "ours": 0.0}, False
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        weights = home / "weights.pt"
        subprocess.run([given.python, "-c", _WEIGHTS, given.model, str(weights)], check=True)
        names = make_pictures(home, given.count, given.sets)
        for task, chosen in (("zeroshot_classification", names), ("zeroshot_retrieval", ["pairs"])):
            for whose, python, code in (("theirs", given.python, _THEIRS), ("ours", sys.executable, _OURS)):
                seconds, processor = run(python, code, chosen, task, home, weights, given, whose)
                total[whose] += seconds
                used[whose] += processor
                print(f"{task}: {whose} {seconds:.1f} s, of the processor {processor:.1f} s", flush=True)
        for dataset in [*names, "pairs"]:
            theirs, ours = (json.loads((home / f"{whose}-{dataset}.json").read_text()) for whose in ("theirs", "ours"))
            for key, value in theirs["metrics"].items():
                if abs(value - ours["metrics"][key]) > 1e-6:
                    wrong = True
                    print(f"{dataset} {key}: theirs {value}, ours {ours['metrics'][key]}")
            print(dataset, {name: round(value, 2) for name, value in ours["clip_eval"]["seconds"].items()})
    share = total["ours"] / total["theirs"]
    print(f"theirs {total['theirs']:.1f} s, ours {total['ours']:.1f} s: {share:.2f} of the time")
    print(f"of the processor {used['theirs']:.1f} s and {used['ours']:.1f} s: {used['ours'] / used['theirs']:.2f}")
    return int(wrong or share > 1 / 3)


if __name__ == "__main__":
    sys.exit(main())
