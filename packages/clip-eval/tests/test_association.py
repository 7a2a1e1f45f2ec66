"""Riddles of associations: prompts, groups and ties on features made for it, and the peer's way on a real model."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip_core.errors import DataError
from clip_eval import open_dataset
from clip_eval.encoder import Encoder
from clip_eval.tasks.association import cue_prompt, evaluate_association
from clip_eval.wds import Association


@pytest.fixture
def riddles(make_retrieval):
    """Sixteen images, and riddles of 5, 6, 10 and 12 candidates."""
    pictures = open_dataset(make_retrieval([f"picture {number}" for number in range(16)]))
    draw = np.random.RandomState(0)
    found = []
    for number in range(40):
        size = (5, 6, 10, 12)[number % 4]
        candidates = draw.choice(16, size=size, replace=False).tolist()
        right = sorted(draw.choice(candidates, size=draw.randint(1, size - 1), replace=False).tolist())
        cue = ("Apple", "bees", "Umbrella", "zebra", "hour")[number % 5]
        found.append(Association(cue, tuple(candidates), tuple(right)))
    return dataclasses.replace(pictures, kind="association", captions=(), associations=tuple(found))


def test_prompts_are_datacomps() -> None:
    assert [cue_prompt(cue) for cue in ("Apple", "bee", "UMBRELLA", "hour")] == [
        "An apple",
        "A bee",
        "An umbrella",
        "A hour",
    ]


@pytest.mark.parity
def test_scores_are_datacomps_way_with_scikit_learn(bundle, riddles) -> None:
    from sklearn.metrics import jaccard_score

    encoder = Encoder(bundle=bundle)
    images = encoder.images(riddles)
    found = evaluate_association(encoder, riddles, images)
    scores, sizes = [], []
    for riddle in riddles.associations:
        with torch.no_grad():
            text = F.normalize(bundle.model.encode_text(bundle.tokenizer([cue_prompt(riddle.cue)])), dim=-1)
        logits = (text @ images.features[list(riddle.candidates)].T)[0].numpy()
        right = np.isin(riddle.candidates, riddle.right)
        taken = np.isin(np.arange(len(right)), np.argsort(logits)[-right.sum() :])
        scores.append(jaccard_score(right, taken))
        sizes.append(len(right))
    scores, sizes = np.array(scores), np.array(sizes)
    expected = {
        "avg_jaccard_score": scores.mean(),
        "jaccard_score_5": scores[sizes == 5].mean(),
        "jaccard_score_6": scores[sizes == 6].mean(),
        "jaccard_score_10": scores[sizes == 10].mean(),
        "jaccard_score_12": scores[sizes == 12].mean(),
        "jaccard_score_5-6": scores[sizes <= 6].mean(),
        "jaccard_score_10-12": scores[sizes >= 10].mean(),
    }
    assert {name: metric.value for name, metric in found.metrics.items()} == pytest.approx(expected)
    assert found.ties == {"jaccard_score": 0}
    assert found.details["candidates"] == {"5": 10, "6": 10, "10": 10, "12": 10}
    assert found.outcomes["jaccard_score_5"].clusters.tolist() == list(range(0, 40, 4))
    assert float(found.outcomes["avg_jaccard_score"].values.mean()) == pytest.approx(scores.mean(), abs=1e-6)
    metric = found.metrics["jaccard_score_10-12"]
    assert metric.low < metric.value < metric.high
    assert metric.n == 20


def test_a_collapsed_model_ties_and_scores_the_lot(bundle, riddles) -> None:
    encoder = Encoder(bundle=bundle)
    images = encoder.images(riddles)
    same = dataclasses.replace(images, features=images.features[:1].expand(16, -1).contiguous())
    found = evaluate_association(encoder, riddles, same)
    metric = found.metrics["avg_jaccard_score"]
    assert found.ties == {"jaccard_score": 1}
    assert metric.pessimistic < metric.value < metric.optimistic == 1


def test_riddles_about_images_that_were_left_out_are_left_out(bundle, riddles) -> None:
    encoder = Encoder(bundle=bundle)
    images = encoder.images(riddles)
    fewer = dataclasses.replace(images, features=images.features[1:], kept=images.kept[1:])
    found = evaluate_association(encoder, riddles, fewer)
    whole = [number for number, riddle in enumerate(riddles.associations) if 0 not in riddle.candidates]
    assert found.details["riddles"] == len(whole)
    assert found.details["riddles_left_out"] == 40 - len(whole) > 0
    assert found.outcomes["avg_jaccard_score"].clusters.tolist() == whole
    none = dataclasses.replace(images, features=images.features[:2], kept=images.kept[:2])
    with pytest.raises(DataError, match="none of the 40 riddles has all its images"):
        evaluate_association(encoder, riddles, none)


def test_metrics_without_a_riddle_are_left_out(bundle, riddles) -> None:
    few = tuple(riddle for riddle in riddles.associations if len(riddle.candidates) == 5)
    dataset = dataclasses.replace(riddles, associations=few)
    encoder = Encoder(bundle=bundle)
    found = evaluate_association(encoder, dataset, encoder.images(dataset))
    assert set(found.metrics) == {"avg_jaccard_score", "jaccard_score_5", "jaccard_score_5-6"}
