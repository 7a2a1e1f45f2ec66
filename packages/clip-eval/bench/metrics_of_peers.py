"""Writes `tests/golden/metrics_of_peers.json`: what CLIP_benchmark, DataComp and WILDS answer on made-up scores.

    PYTHONPATH=DATACOMP python metrics_of_peers.py

runs where the peers run: clip_benchmark 1.6.2, wilds 2.0.0, numpy 1.26.4 (with numpy 2.4 CLIP_benchmark's `accuracy`
raises TypeError), scikit-learn 1.4.2, open_clip_torch; DATACOMP is a checkout of mlfoundations/datacomp at 4a8df19.
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"


def _answers(made: dict[str, Any], seed: int) -> dict[str, Any]:
    import torch
    from clip_benchmark.metrics.zeroshot_classification import accuracy, average_precision_per_class
    from eval_utils.fairness_eval import EVALUATORS
    from sklearn.metrics import balanced_accuracy_score

    data = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in made["draw"](seed).items()}
    scores, labels = data["scores"], data["labels"]
    guesses = scores.argmax(1)
    acc1, acc5 = accuracy(scores, labels, topk=(1, 5))
    precisions = average_precision_per_class(scores, data["tags"])
    fields = {
        "wilds/fmow": (data["regions"], data["years"], labels),
        "wilds/camelyon17": (data["years"], data["regions"], labels),
        "wilds/iwildcam": (data["regions"], *(torch.zeros_like(labels),) * 7, labels),
        "fairness/geode": (data["regions"], data["years"]),
        "fairness/dollar_street": (data["regions"], data["years"], labels),
    }
    grouped = {}
    for name, columns in fields.items():
        metadata = torch.stack(columns, dim=1)
        given = scores.topk(5, dim=1).indices if name == "fairness/dollar_street" else guesses
        found = EVALUATORS[name](metadata).eval(given, labels, metadata)[0]
        grouped[name] = {key: float(value) for key, value in found.items()}
    metadata = torch.stack([labels, data["genders"], data["races"], data["white"]], dim=1)
    faces = EVALUATORS["fairness/fairface"](metadata).eval(data["guesses"], None, metadata)
    return {
        "faces": {key: float(value) for key, value in faces.items()},
        "acc1": acc1,
        "acc5": acc5,
        "mean_per_class_recall": float(balanced_accuracy_score(labels, guesses)),
        "average_precisions": precisions.tolist(),
        "mean_average_precision": float(precisions.mean()),
        "datacomp": grouped,
    }


if __name__ == "__main__":
    drawing = runpy.run_path(str(GOLDEN / "metrics_of_peers.py"))
    answers = {str(seed): _answers(drawing, seed) for seed in drawing["SEEDS"]}
    (GOLDEN / "metrics_of_peers.json").write_text(json.dumps(answers, indent=1) + "\n")
