"""Captions that search pictures: right ranks, ties in the middle, failures and successes both shown."""

from __future__ import annotations

import pytest
import torch

from clip_eval.searches import example_searches


def features(rows: int, seed: int, width: int = 12) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_ranks_and_answers_are_those_of_the_whole_matrix() -> None:
    images, texts = features(30, 0), features(60, 1)
    owners = torch.arange(60) // 2
    captions = [f"caption {number}" for number in range(60)]
    places = [100 + number for number in range(30)]
    found = example_searches(images, texts, owners, captions, places, count=60)
    assert len(found) == 60
    scores = texts.double() @ images.double().T
    for search in found:
        row = captions.index(search["caption"])
        order = scores[row].argsort(descending=True).tolist()
        assert search["image"] == places[int(owners[row])]
        assert search["rank"] == 1 + order.index(int(owners[row]))
        assert [answer["image"] for answer in search["answers"]] == [places[column] for column in order[:3]]
        assert search["answers"][0]["similarity"] == pytest.approx(float(scores[row].max()), abs=1e-6)


def test_half_of_them_fail_where_enough_do() -> None:
    images = features(400, 2)
    texts = torch.where(torch.arange(400)[:, None] % 10 == 0, images.roll(1, 0), images)
    found = example_searches(images, texts, torch.arange(400), [str(n) for n in range(400)], range(400), count=12)
    assert sum(search["rank"] == 1 for search in found) == 6
    assert len({search["caption"] for search in found}) == 12


def test_without_failures_all_are_successes() -> None:
    images = features(20, 3)
    found = example_searches(images, images, torch.arange(20), [str(n) for n in range(20)], range(20))
    assert [search["rank"] for search in found] == [1.0] * 12


def test_ties_stand_in_the_middle() -> None:
    images = features(1, 4).repeat(5, 1)
    (search,) = example_searches(images, images[:1], torch.tensor([2]), ["all alike"], range(5))
    assert search["rank"] == 3.0
    assert len(search["answers"]) == 3
