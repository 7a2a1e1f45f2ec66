"""CLIP_benchmark's commands with OpenCLIP and with `clip_hub.open_clip` in its place: figures and seconds of both.

    python bench_clip_benchmark.py --python VENV/bin/python

runs zero-shot classification and retrieval on pictures that are drawn here, with the same random weights, in an
environment that has CLIP_benchmark 1.6.2, open_clip_torch 3.3.0, clip-hub, and what that release works with (measured:
numpy 1.26.4, webdataset 0.2.86, scikit-learn 1.4.2, pycocoevalcap 1.2). Prints every figure that differs.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

# Run in the other environment: the whole difference is what stands under the name open_clip.
_COMMAND = """
import sys
if sys.argv.pop(1) == "ours":
    import clip_hub.open_clip
    sys.modules["open_clip"] = clip_hub.open_clip
import open_clip
print(open_clip.__file__, file=sys.stderr)
from clip_benchmark.cli import main
sys.exit(main())
"""
_WEIGHTS = """
import sys, torch, open_clip
torch.manual_seed(0)
torch.save(open_clip.create_model(sys.argv[1]).state_dict(), sys.argv[2])
"""
_CLASSES = ("red", "green", "blue", "grey", "white", "black", "pink", "brown")
_TEMPLATES = ("a photo of a {c} thing.", "a {c} picture.")


def _pictures(folder: Path, count: int, *, captions: bool) -> None:
    """A data set in CLIP_benchmark's layout: noise of a colour, its class or five captions."""
    import numpy as np
    import PIL.Image

    (folder / "test").mkdir(parents=True)
    (folder / "test/nshards.txt").write_text("1")
    (folder / "dataset_type.txt").write_text("retrieval" if captions else "classification")
    (folder / "classnames.txt").write_text("\n".join(_CLASSES))
    (folder / "zeroshot_classification_templates.txt").write_text("\n".join(_TEMPLATES))
    generator = np.random.default_rng(0)
    with tarfile.open(folder / "test/0.tar", "w") as archive:

        def add(name: str, data: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))

        for index in range(count):
            label = index % len(_CLASSES)
            pixels = generator.integers(0, 256, (60 + index, 90, 3))
            if label < 3:
                pixels[..., label] = 255 - pixels[..., label] // 4
            stream = io.BytesIO()
            PIL.Image.fromarray(pixels.astype("uint8")).save(stream, "PNG")
            add(f"s{index:05}.png", stream.getvalue())
            if captions:
                texts = [f"{_CLASSES[label]} picture {index}, seen for the {n}. time" for n in range(5)]
                add(f"s{index:05}.txt", "\n".join(texts).encode())
            else:
                add(f"s{index:05}.cls", str(label).encode())


def main() -> int:
    """0 where all figures are equal to `tolerance`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="interpreter that has CLIP_benchmark")
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--count", type=int, default=64, help="pictures")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--amp", action="store_true", help="as CLIP_benchmark does unless told otherwise")
    given = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        weights = home / "weights.pt"
        subprocess.run([given.python, "-c", _WEIGHTS, given.model, str(weights)], check=True)
        for task in ("zeroshot_classification", "zeroshot_retrieval"):
            data = home / task
            _pictures(data, given.count, captions=task == "zeroshot_retrieval")
            found = {}
            for whose in ("theirs", "ours"):
                output = home / f"{task}-{whose}.json"
                start = time.perf_counter()
                subprocess.run(
                    [given.python, "-c", _COMMAND, whose, "eval", "--dataset", f"wds/{task}", "--dataset_root", data]
                    + ["--task", task, "--model", given.model, "--pretrained", weights, "--output", output]
                    + ["--batch_size", "16", "--num_workers", "0", "--recall_k", "1", "5", "10"]
                    + ([] if given.amp else ["--no_amp"]),
                    check=True,
                    stdout=sys.stderr,
                )
                seconds = time.perf_counter() - start
                found[whose] = _numbers(json.loads(output.read_text())["metrics"])
                print(task, whose, f"{seconds:.1f} s", json.dumps(found[whose]))
            assert found["ours"].keys() == found["theirs"].keys()
            for key, value in found["theirs"].items():
                difference = abs(value - found["ours"][key])
                worst = math.inf if math.isnan(difference) else max(worst, difference)
                if difference:
                    print(f"  {key}: {value} with OpenCLIP, {found['ours'][key]} with clip_hub.open_clip")
    print(f"largest difference {worst}")
    return 0 if worst <= given.tolerance else 1


def _numbers(metrics: dict[str, object]) -> dict[str, float]:
    return {key: float(value) for key, value in metrics.items() if isinstance(value, int | float)}


if __name__ == "__main__":
    sys.exit(main())
