"""Seconds and memory of retrieval both ways at recall 1, 5 and 10: ours, CLIP_benchmark's and torchmetrics'.

    python bench_retrieval.py --python VENV/bin/python

VENV has CLIP_benchmark 1.6.2 (its retrieval needs torch and tqdm alone); without it, that peer is left out. Each runs
in a process of its own on one thread, with the same made-up features of COCO's size (5,000 images, 25,000 captions) and
of Flickr30k's, where torchmetrics takes part, too. Prints processor seconds, wall-clock seconds, the largest memory
beyond what stood before the call, and how many of our runs fit into the same processor time. Values are compared, too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

_START = """
import json, resource, sys, time, torch
torch.set_num_threads(1)
data = torch.load(sys.argv[1], weights_only=True)
images, texts, owners = data["images"], data["texts"], data["owners"]

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

"""
_STOP = """
before, cpu, wall = peak(), time.process_time(), time.perf_counter()
values = measured()
print("RESULT", json.dumps({
    "cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "mib": peak() - before, "values": values,
}))
"""
_RUNS = {
    "clip-eval": """
from clip_eval.metrics import score_retrieval

def measured():
    found = score_retrieval(images, texts, owners).metrics
    return {name: metric.value for name, metric in found.items() if "_retrieval_recall" in name}
""",
    "CLIP_benchmark": """
from clip_benchmark.metrics import zeroshot_retrieval

class Model:
    def encode_image(self, rows): return images[rows.long()]
    def encode_text(self, rows): return texts[rows]

def measured():
    of_image = [[] for _ in images]
    for row, owner in enumerate(owners.tolist()):
        of_image[owner].append(row)
    loader = [(torch.arange(at, min(at + 64, len(images))), of_image[at : at + 64]) for at in range(0, len(images), 64)]
    return zeroshot_retrieval.evaluate(Model(), loader, torch.tensor, "cpu", amp=False, recall_k_list=[1, 5, 10])
""",
    "torchmetrics": """
from torchmetrics.retrieval import RetrievalHitRate

def measured():
    scores, right, found = texts @ images.T, owners[:, None] == torch.arange(len(images)), {}
    for way, sides in (("image", (scores, right)), ("text", (scores.T, right.T))):
        preds, target = (side.flatten() for side in sides)
        queries = torch.arange(len(sides[0]))[:, None].expand_as(sides[0]).flatten()
        for k in (1, 5, 10):
            found[f"{way}_retrieval_recall@{k}"] = float(RetrievalHitRate(top_k=k)(preds, target, indexes=queries))
    return found
""",
}


def _features(path: Path, images: int, captions: int, width: int) -> None:
    import torch

    random = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(images, width, generator=random), dim=1)
    owners = torch.arange(images).repeat_interleave(captions // images)
    texts = features[owners] + 5.5 * torch.randn(len(owners), width, generator=random) / width**0.5
    texts = torch.nn.functional.normalize(texts, dim=1)
    torch.save({"images": features, "texts": texts, "owners": owners}, path)


def _run(python: str, code: str, data: Path) -> dict[str, object]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, "-c", _START + code + _STOP, str(data)], env=environment, capture_output=True, text=True
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        raise SystemExit(done.stderr)
    found: dict[str, object] = json.loads(lines[-1].removeprefix("RESULT "))
    return found


def main() -> int:
    """0 where all values agree to `tolerance`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", help="interpreter that has CLIP_benchmark")
    parser.add_argument("--width", type=int, default=512, help="features")
    parser.add_argument("--repeats", type=int, default=3, help="the best of so many runs counts")
    parser.add_argument("--tolerance", type=float, default=1e-6)
    given = parser.parse_args()
    worst = 0.0
    for images, captions in ((1000, 5000), (5000, 25000)):
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "features.pt"
            _features(data, images, captions, given.width)
            runs = {"clip-eval": sys.executable}
            if given.python:
                runs["CLIP_benchmark"] = given.python
            if images == 1000:  # its flattened indices of COCO would take gigabytes and minutes
                runs["torchmetrics"] = sys.executable
            best: dict[str, dict[str, object]] = {}
            for _ in range(given.repeats):
                for name, python in runs.items():
                    found = _run(python, _RUNS[name], data)
                    if name not in best or found["cpu"] < best[name]["cpu"]:  # type: ignore[operator]
                        best[name] = found
        ours = best["clip-eval"]
        print(f"{images} images, {captions} captions, {given.width} features")
        for name, found in best.items():
            ratio = found["cpu"] / ours["cpu"]  # type: ignore[operator]
            print(
                f"  {name:15} {found['cpu']:8.2f} s processor {found['wall']:8.2f} s wall {found['mib']:8.0f} MiB"
                f"  x{ratio:.1f}"
            )
            difference = max(abs(value - found["values"][key]) for key, value in ours["values"].items())  # type: ignore[attr-defined,index]
            worst = max(worst, difference)
    print(f"largest difference {worst:.1e}")
    return 0 if worst <= given.tolerance else 1


if __name__ == "__main__":
    sys.exit(main())
