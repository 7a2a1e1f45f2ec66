"""What must hold of every retrieval score: its order in k, its symmetries, chance, and intervals that cover."""

from __future__ import annotations

import pytest
import torch

from clip_core.errors import ConfigError
from clip_eval.metrics.ranking import Ranks
from clip_eval.metrics.retrieval import _mean_recall, score_retrieval


def unit(*shape: int, seed: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def noisy(count: int, each: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images, and captions that are hard to tell apart."""
    images, owners = unit(count, 16, seed=seed), torch.arange(count).repeat_interleave(each)
    shared = 1.2 * unit(count, 16, seed=seed + 1)[owners] + 0.8 * unit(count * each, 16, seed=seed + 2)
    return images, torch.nn.functional.normalize(images[owners] + shared, dim=-1), owners


def test_recall_grows_with_k_up_to_the_size_of_the_gallery() -> None:
    found = score_retrieval(*noisy(40, 3, seed=0), ks=[120, 1, 2, 3, 5, 10, 20, 40])
    for way, gallery in (("image", 40), ("text", 120)):
        values = [found.metrics[f"{way}_retrieval_recall@{k}"].value for k in (1, 2, 3, 5, 10, 20, 40, 120)]
        assert values == sorted(values)
        assert values[0] < values[3] < 1
        assert found.metrics[f"{way}_retrieval_recall@{gallery}"].value == 1
    assert found.whole_gallery == (
        "image_retrieval_recall@40",
        "image_retrieval_recall@120",
        "text_retrieval_recall@120",
    )


def test_both_ways_are_one_for_pairs_with_symmetric_similarities() -> None:
    basis, _ = torch.linalg.qr(torch.randn(30, 30, generator=torch.Generator().manual_seed(0)))
    # Rows of an orthogonal matrix and the images of each other under a reflection: a symmetric matrix of cosines.
    axis = unit(30, seed=1)
    texts = basis - 2 * (basis @ axis)[:, None] * axis
    metrics = score_retrieval(basis, texts, torch.arange(30)).metrics
    for k in (1, 5, 10):
        one, other = metrics[f"image_retrieval_recall@{k}"], metrics[f"text_retrieval_recall@{k}"]
        assert one.value == pytest.approx(other.value)
    assert metrics["mean_recall@1"].value == pytest.approx(metrics["image_retrieval_recall@1"].value)


def test_models_that_know_nothing_score_chance() -> None:
    owners = torch.arange(1000).repeat_interleave(2)
    metrics = score_retrieval(unit(1000, 64, seed=0), unit(2000, 64, seed=1), owners, ks=[10, 100]).metrics
    # Of an image's two captions one is among the first k of 2000 with chance 1 - (1 - k / 2000)**2, about.
    for name, chance in (
        ("image_retrieval_recall@10", 0.01),
        ("image_retrieval_recall@100", 0.1),
        ("text_retrieval_recall@10", 1 - (1 - 10 / 2000) ** 2),
        ("text_retrieval_recall@100", 1 - (1 - 100 / 2000) ** 2),
    ):
        error = (chance * (1 - chance) / metrics[name].n) ** 0.5
        assert abs(metrics[name].value - chance) < 4 * error
    assert "mean_recall@1" not in metrics


def test_copies_of_all_images_and_captions_tie_and_leave_the_optimist_alone() -> None:
    images, texts, owners = noisy(30, 2, seed=3)
    once = score_retrieval(images, texts, owners).metrics
    twice = score_retrieval(images.repeat(2, 1), texts.repeat(2, 1), torch.cat([owners, owners + 30]))
    assert twice.image_retrieval_ties == twice.text_retrieval_ties == 1
    for way in ("image", "text"):
        name = f"{way}_retrieval_recall@1"
        assert twice.metrics[name].optimistic == pytest.approx(once[name].value)
        assert twice.metrics[name].pessimistic == 0
        assert twice.metrics[name].value == pytest.approx(once[name].value / 2)


def test_the_interval_of_the_mean_covers_as_often_as_it_says() -> None:
    """Units are drawn: an image with its three captions, found all together or each by itself."""
    inside = 0
    for seed in range(300):
        random = torch.Generator().manual_seed(seed)
        together = torch.rand(100, generator=random) < 0.5
        found_image = torch.rand(100, generator=random) < 0.7
        apart = torch.rand(100, 3, generator=random) < 0.7
        found_text = torch.where(together[:, None], found_image[:, None], apart)
        ranks = [
            Ranks((~hits.flatten()).long(), torch.zeros(hits.numel()).long(), torch.ones(hits.numel()).long())
            for hits in (found_text, found_image)
        ]
        owners = torch.arange(100).repeat_interleave(3)
        metric, _ = _mean_recall(*ranks, owners, torch.arange(100))
        inside += metric.low <= 0.7 <= metric.high
    assert 0.91 < inside / 300 < 0.985


def test_the_interval_of_the_mean_knows_that_captions_share_an_image() -> None:
    images, texts, owners = noisy(150, 1, seed=8)
    single = score_retrieval(images, texts, owners)
    # Five equal captions for each image hold no more evidence than one.
    again = score_retrieval(images, texts.repeat_interleave(5, dim=0), owners.repeat_interleave(5))
    one, five = single.metrics["mean_recall@1"], again.metrics["mean_recall@1"]
    assert five.value == pytest.approx(one.value)
    assert 0.2 < one.value < 0.8
    assert five.high - five.low == pytest.approx(one.high - one.low, rel=0.02)
    assert (one.n, five.n) == (300, 900)
    values, clusters = again.outcomes["mean_recall@1"]
    assert float(values.double().mean()) == pytest.approx(five.value)
    assert clusters.tolist() == list(range(150))


def test_images_with_many_captions_weigh_by_their_captions() -> None:
    images, texts, owners = noisy(50, 4, seed=11)
    keep = torch.ones(200, dtype=torch.bool)
    keep[[place for place in range(200) if place % 4 >= 1 + (place // 4) % 4]] = False  # one to four captions each
    found = score_retrieval(images, texts[keep], owners[keep])
    both = (found.metrics["image_retrieval_recall@1"].value + found.metrics["text_retrieval_recall@1"].value) / 2
    assert found.metrics["mean_recall@1"].value == pytest.approx(both)
    values, _ = found.outcomes["mean_recall@1"]
    assert float(values.double().mean()) == pytest.approx(both)


@pytest.mark.parametrize("k", [0, -3, 1.0, True])
def test_a_k_that_is_none_is_refused(k: object) -> None:
    with pytest.raises(ConfigError, match="a whole number from 1 on"):
        score_retrieval(torch.eye(3), torch.eye(3), torch.arange(3), ks=[5, k])
