"""Writes `tests/golden/retrieval_of_peers.json`: what CLIP_benchmark's and OpenCLIP's own functions answer.

    python ask_retrieval_peers.py

runs where clip_benchmark 1.6.2, open_clip_torch 3.3.0 and torch are. `plain` features have no ties, `tied` ones have.
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

SEEDS = (0, 1, 2)
KS = (1, 5, 10)
GOLDEN = Path(__file__).parent.parent / "tests" / "golden"
FEATURES = runpy.run_path(str(GOLDEN / "retrieval_features.py"))
IMAGES = FEATURES["IMAGES"]


class _Model:
    """Finds the features of numbered images and texts."""

    def __init__(self, images: Any, texts: Any) -> None:
        self.images, self.texts = images, texts

    def encode_image(self, numbers: Any) -> Any:
        return self.images[numbers.flatten().long()]

    def encode_text(self, numbers: Any) -> Any:
        return self.texts[numbers]


def _answers(seed: int, *, tied: bool) -> dict[str, Any]:
    import torch
    from clip_benchmark.metrics import image_caption_selection, zeroshot_retrieval
    from open_clip_train.train import get_clip_metrics

    def tokenize(texts: list[str]) -> torch.Tensor:
        return torch.tensor([int(text) for text in texts])

    data = {name: torch.from_numpy(value) for name, value in FEATURES["draw"](seed, tied=tied).items()}
    of_image = [[str(int(row)) for row in (data["owners"] == image).nonzero()] for image in range(IMAGES)]
    loader = [(torch.arange(start, start + 20.0), of_image[start : start + 20]) for start in range(0, IMAGES, 20)]
    model = _Model(data["images"], data["texts"])
    retrieval = zeroshot_retrieval.evaluate(model, loader, tokenize, "cpu", amp=False, recall_k_list=list(KS))
    one = torch.searchsorted(data["owners"], torch.arange(IMAGES - tied))
    paired = get_clip_metrics(data["images"][: len(one)], data["texts"][one], torch.tensor(1.0))
    both = {name: torch.from_numpy(value) for name, value in FEATURES["draw_choices"](seed, tied=tied).items()}
    model = _Model(both["images"].flatten(0, 1), both["texts"].flatten(0, 1))
    numbers = torch.arange(200.0).view(100, 2, 1, 1, 1)
    texts = [[str(2 * example), str(2 * example + 1)] for example in range(100)]
    winoground = image_caption_selection.evaluate(model, [(numbers, texts)], tokenize, "cpu", amp=False)
    sugar_crepe = image_caption_selection.evaluate(model, [(numbers[:, :1], texts)], tokenize, "cpu", amp=False)
    return {
        "clip_benchmark": retrieval,
        "open_clip": {name: float(value) for name, value in paired.items()},
        "winoground": winoground,
        "sugar_crepe": sugar_crepe,
    }


if __name__ == "__main__":
    answers = {f"{seed} {name}": _answers(seed, tied=name == "tied") for seed in SEEDS for name in ("plain", "tied")}
    (GOLDEN / "retrieval_of_peers.json").write_text(json.dumps(answers, indent=1, sort_keys=True) + "\n")
