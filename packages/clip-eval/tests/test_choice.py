"""Caption choice: strict inequality, ties, chance, and what must not matter."""

from __future__ import annotations

import pytest
import torch

from clip_core.errors import DataError
from clip_eval.metrics.choice import Questions, score_choice


def winoground(scores: torch.Tensor) -> tuple[Questions, Questions]:
    """Questions from scores (E, 2 images, 2 captions); image i and caption i belong together."""
    count = len(scores)
    questions = torch.arange(2 * count).repeat_interleave(2)
    right = torch.eye(2, dtype=torch.bool).flatten().repeat(count)
    examples = torch.arange(count).repeat_interleave(2)
    texts = Questions(scores.flatten(), questions, right, examples)
    images = Questions(scores.transpose(1, 2).flatten(), questions, right, examples)
    return texts, images


def paper_scores(scores: torch.Tensor) -> tuple[list[bool], list[bool], list[bool]]:
    """Text, image and group score as Thrush et al. 2022 define them, one comparison at a time."""
    text, image = [], []
    for one in scores.tolist():
        (i0c0, i0c1), (i1c0, i1c1) = one
        text.append(i0c0 > i0c1 and i1c1 > i1c0)
        image.append(i0c0 > i1c0 and i1c1 > i0c1)
    return text, image, [one and other for one, other in zip(text, image, strict=True)]


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_of_the_paper(seed: int) -> None:
    # Whole numbers up to 4, so that there are ties of every kind.
    scores = torch.randint(5, (200, 2, 2), generator=torch.Generator().manual_seed(seed)).double()
    metrics, answers, ties = score_choice(*winoground(scores), torch.arange(200))
    for name, expected in zip(("text_acc", "image_acc", "acc"), paper_scores(scores), strict=True):
        assert answers[name].strict.tolist() == expected
        assert metrics[name].value == metrics[name].pessimistic == pytest.approx(sum(expected) / 200)
        assert metrics[name].optimistic > metrics[name].value
    assert ties["text_acc"] == pytest.approx(float((scores[..., 0] == scores[..., 1]).double().mean()))
    assert ties["image_acc"] == pytest.approx(float((scores[:, 0] == scores[:, 1]).double().mean()))


def test_models_that_know_nothing_score_chance() -> None:
    scores = torch.rand(40000, 2, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    metrics, _, ties = score_choice(*winoground(scores), torch.arange(40000))
    for name, chance in (("text_acc", 1 / 4), ("image_acc", 1 / 4), ("acc", 1 / 6)):
        assert metrics[name].low < chance < metrics[name].high
    assert ties == {"text_acc": 0, "image_acc": 0}
    alone, _, _ = score_choice(sugar_crepe(scores.flatten()[:4000]), None, torch.arange(2000))
    assert alone["text_acc"].low < 0.5 < alone["text_acc"].high


def sugar_crepe(scores: torch.Tensor) -> Questions:
    """One image, two captions, the right one first."""
    count = len(scores) // 2
    right = torch.tensor([True, False]).repeat(count)
    return Questions(scores, torch.arange(count).repeat_interleave(2), right, torch.arange(count))


def test_a_collapsed_model_is_never_right() -> None:
    # CLIP_benchmark takes the first of equal scores, so such a model scores 1 on SugarCrepe there.
    metrics, _, ties = score_choice(sugar_crepe(torch.ones(100)), None, torch.arange(50))
    assert set(metrics) == {"text_acc", "acc"}
    assert (metrics["acc"].value, metrics["acc"].pessimistic, metrics["acc"].optimistic) == (0, 0, 1)
    assert ties == {"text_acc": 1}


def test_order_scale_and_shift_do_not_matter() -> None:
    scores = torch.randint(9, (100, 2, 2), generator=torch.Generator().manual_seed(5)).double()
    expected = {name: metric.value for name, metric in score_choice(*winoground(scores), torch.arange(100))[0].items()}
    for changed in (scores[torch.randperm(100)], 0.5 * scores - 3, scores.flip(1).flip(2)):
        metrics, _, _ = score_choice(*winoground(changed), torch.arange(100))
        assert {name: metric.value for name, metric in metrics.items()} == expected


def test_examples_about_one_image_are_one_unit() -> None:
    scores = torch.rand(400, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    again = scores.view(200, 2).repeat_interleave(5, dim=0).flatten()
    single = score_choice(sugar_crepe(scores), None, torch.arange(200))[0]["acc"]
    repeated = score_choice(sugar_crepe(again), None, torch.arange(200).repeat_interleave(5))[0]["acc"]
    assert repeated.value == single.value
    assert repeated.high - repeated.low == pytest.approx(single.high - single.low, rel=0.02)


def test_similarities_that_are_no_numbers_are_refused() -> None:
    scores = torch.ones(4)
    scores[1] = torch.nan
    with pytest.raises(DataError, match="are NaN"):
        score_choice(sugar_crepe(scores), None, torch.arange(2))
