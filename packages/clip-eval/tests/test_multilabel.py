"""The multilabel task on made-up data: from labels and prompts to a result."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from clip_eval.features import ImageFeatures
from clip_eval.tasks.multilabel import evaluate_multilabel, presence
from clip_eval.wds import Sample, WdsDataset


class Directions:
    """An encoder whose classes are the axes."""

    def __init__(self) -> None:
        self.bundle = SimpleNamespace(model=SimpleNamespace(logit_scale=torch.zeros(())))

    def classifier(self, prompts: dict[str, list[str]]) -> torch.Tensor:
        return torch.eye(len(prompts))

    def count_truncated(self, texts: list[str]) -> int:
        return len(texts)


@pytest.fixture
def dataset() -> WdsDataset:
    present = ((0,), (0, 1), (), (2,), (1,))
    return WdsDataset(
        name="tags",
        folder=Path("tags"),
        split="test",
        kind="multilabel",
        samples=tuple(Sample("0.tar", f"s{number}", {"png": (0, 1)}) for number in range(len(present))),
        classnames=("cat", "dog", "owl", "whale"),
        templates=("a {c}", "the {c}"),
        present=present,
    )


def images_of(features: torch.Tensor, kept: list[int]) -> ImageFeatures:
    return ImageFeatures(
        features=features, kept=torch.tensor(kept), excluded=(), seconds_decode=0.0, seconds_encode=0.0
    )


def test_result(dataset: WdsDataset) -> None:
    features = torch.nn.functional.normalize(presence(dataset, torch.arange(5)).float() + 1e-3, dim=1)
    result = evaluate_multilabel(Directions(), dataset, images_of(features, [0, 1, 2, 3, 4]))
    mean = result.metrics["mean_average_precision"]
    assert mean.n == 5
    assert result.details["classes_without_positives"] == 1
    assert mean.value == pytest.approx(result.details["mean_over_classes_with_positives"] * 3 / 4)
    assert result.details["images_without_labels"] == 1
    assert result.details["classes"][3]["average_precision"] is None
    assert result.details["prompts_truncated"] == 8
    assert result.samples[1].truth == ("cat", "dog")
    assert result.samples[0].right
    assert not result.samples[2].right
    assert float(result.outcomes["mean_average_precision"].values.mean()) == pytest.approx(mean.value, abs=1e-6)
    json.dumps(result.details, allow_nan=False)


def test_left_out_images_keep_the_labels_in_step(dataset: WdsDataset) -> None:
    kept = [1, 3, 4]
    shown = presence(dataset, torch.tensor(kept))
    assert shown.tolist() == [[True, True, False, False], [False, False, True, False], [False, True, False, False]]
    features = torch.nn.functional.normalize(shown.float() + 1e-3, dim=1)
    result = evaluate_multilabel(Directions(), dataset, images_of(features, kept))
    assert [sample.index for sample in result.samples] == kept
    assert all(sample.right for sample in result.samples)
    assert result.metrics["mean_average_precision"].value == pytest.approx(3 / 4)
