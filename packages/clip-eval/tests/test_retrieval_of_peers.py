"""Retrieval and caption choice against what CLIP_benchmark and OpenCLIP answered on the same features (golden/)."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch

from clip_eval.metrics import score_retrieval
from clip_eval.metrics.choice import Questions, score_choice
from clip_eval.metrics.ranking import pair_similarities

pytestmark = pytest.mark.parity

GOLDEN = Path(__file__).parent / "golden"
ANSWERS = json.loads((GOLDEN / "retrieval_of_peers.json").read_text())
PLAIN = [name for name in ANSWERS if name.endswith("plain")]
TIED = [name for name in ANSWERS if name.endswith("tied")]


def drawn(what: str, name: str) -> dict[str, torch.Tensor]:
    """As bench/ask_retrieval_peers.py, which asked the peers."""
    seed, kind = name.split()
    made = runpy.run_path(str(GOLDEN / "retrieval_features.py"))[what](int(seed), tied=kind == "tied")
    return {part: torch.from_numpy(value) for part, value in made.items()}


@pytest.mark.parametrize("name", PLAIN)
def test_recall_is_clip_benchmarks(name: str) -> None:
    found = score_retrieval(*drawn("draw", name).values()).metrics
    for key, value in ANSWERS[name]["clip_benchmark"].items():
        assert found[key].value == pytest.approx(value, abs=1e-6)  # its means are float32
    one, other = (ANSWERS[name]["clip_benchmark"][f"{way}_retrieval_recall@1"] for way in ("text", "image"))
    assert found["mean_recall@1"].value == pytest.approx((one + other) / 2, abs=1e-6)  # DataComp's


@pytest.mark.parametrize("name", TIED)
def test_with_ties_clip_benchmark_is_somewhere_within_the_bounds(name: str) -> None:
    """`topk` decides there. Its 60th image has no caption and counts as a miss; ours asks for none."""
    found = score_retrieval(*drawn("draw", name).values(), allow_no_caption=True).metrics
    wide = 0
    for key, value in ANSWERS[name]["clip_benchmark"].items():
        asking = 59 / 60 if key.startswith("text") else 1
        low, high = found[key].pessimistic * asking, found[key].optimistic * asking
        assert low - 1e-6 <= value <= high + 1e-6
        wide += high - low > 0.05
    assert wide >= 2


@pytest.mark.parametrize("name", PLAIN)
def test_ranks_are_open_clips(name: str) -> None:
    """It pairs each image with one caption, and rounds a median between two ranks down."""
    data = drawn("draw", name)
    first = torch.searchsorted(data["owners"], torch.arange(60))
    found = score_retrieval(data["images"], data["texts"][first], torch.arange(60)).metrics
    for theirs, ours in (("image_to_text", "text_retrieval"), ("text_to_image", "image_retrieval")):
        for k in (1, 5, 10):
            assert found[f"{ours}_recall@{k}"].value == pytest.approx(ANSWERS[name]["open_clip"][f"{theirs}_R@{k}"])
        assert found[f"{ours}_median_rank"].value // 1 == ANSWERS[name]["open_clip"][f"{theirs}_median_rank"]


def questions(name: str, images: int) -> tuple[Questions, Questions | None]:
    data = drawn("draw_choices", name)
    pairs = torch.cartesian_prod(torch.arange(100), torch.arange(2), torch.arange(2))
    if images == 1:
        pairs = pairs[pairs[:, 1] == 0]
    example, image, text = pairs.T

    def ask(asking: torch.Tensor) -> Questions:
        scores = pair_similarities(
            data["images"].flatten(0, 1), 2 * example + image, data["texts"].flatten(0, 1), 2 * example + text
        )
        _, number = torch.unique(2 * example + asking, return_inverse=True)
        return Questions(scores, number, image == text, torch.arange(100).repeat_interleave(images))

    return ask(image), ask(text) if images == 2 else None


@pytest.mark.parametrize("name", ANSWERS)
def test_winoground_is_clip_benchmarks_but_for_ties(name: str) -> None:
    texts, images = questions(name, 2)
    found = score_choice(texts, images, torch.arange(100))[0]
    for key, value in ANSWERS[name]["winoground"].items():
        assert found[key].pessimistic - 1e-6 <= value <= found[key].optimistic + 1e-6
        if name in PLAIN:
            assert found[key].value == pytest.approx(value, abs=1e-6)
    assert (found["text_acc"].optimistic > found["text_acc"].value) == (name in TIED)


@pytest.mark.parametrize("name", ANSWERS)
def test_sugar_crepe_is_clip_benchmarks_but_for_ties(name: str) -> None:
    """There a tie is right, because the right caption stands first; and with one image `image_acc` is always 1."""
    found = score_choice(questions(name, 1)[0], None, torch.arange(100))[0]
    theirs = ANSWERS[name]["sugar_crepe"]
    assert found["text_acc"].optimistic == pytest.approx(theirs["text_acc"], abs=1e-6)
    assert (found["text_acc"].value < found["text_acc"].optimistic) == (name in TIED)
    assert "image_acc" not in found
    assert theirs["image_acc"] == 1
