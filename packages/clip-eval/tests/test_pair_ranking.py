"""Exact similarities and the pass over their blocks, against brute force; what must not matter does not."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch.overrides import TorchFunctionMode

from clip_core.errors import DataError
from clip_eval.metrics.pair_ranking import PairRanks, rank_pairs
from clip_eval.metrics.ranking import on_grid, pair_similarities, rank_rows, similarities


def unit(*shape: int, seed: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def made(count: int = 300, captions: int = 1100, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features with every kind of tie: copied images, copied captions, of the same image and of others."""
    random = torch.Generator().manual_seed(seed)
    images = unit(count, 16, seed=seed)
    images[: count // 10] = images[count // 10 : 2 * (count // 10)]
    owners = torch.cat([torch.arange(count), torch.randint(count, (captions - count,), generator=random)])
    owners = owners[torch.randperm(captions, generator=random)]
    texts = torch.nn.functional.normalize(images[owners] + 1.2 * unit(captions, 16, seed=seed + 1), dim=-1)
    texts[:60] = texts[60:120]
    return images, texts, owners


def equal(first: PairRanks, second: PairRanks) -> bool:
    pairs = [
        (getattr(getattr(first, way), part), getattr(getattr(second, way), part))
        for way in ("by_text", "by_image")
        for part in ("greater", "equal", "right")
    ]
    return all(torch.equal(one, other) for one, other in [*pairs, (first.asking, second.asking)])


def test_similarities_are_exact() -> None:
    left, right = unit(7, 512, seed=0), unit(5, 512, seed=1)
    found = similarities(left, right)
    for row in range(7):
        for column in range(5):
            pairs = zip(on_grid(left[row]).tolist(), on_grid(right[column]).tolist(), strict=True)
            exact = sum((Fraction(one) * Fraction(other) for one, other in pairs), Fraction(0))
            assert Fraction(found[row, column].item()) == exact
    assert float((on_grid(left) - left).abs().max()) <= 2.0**-27
    assert torch.equal(on_grid(on_grid(left)), on_grid(left))
    rows, columns = torch.tensor([6, 0, 6]), torch.tensor([4, 1, 0])
    assert torch.equal(pair_similarities(left, rows, right, columns, chunk=2), found[rows, columns])


def test_the_place_of_a_feature_changes_no_bit_of_its_similarities() -> None:
    left, right = unit(65, 640, seed=2), unit(37, 640, seed=3)
    order = torch.randperm(640)
    found = similarities(left, right)
    assert torch.equal(found, similarities(left[:, order], right[:, order]))
    assert torch.equal(found[3:4, 5:6], similarities(left[3:4], right[5:6]))
    assert torch.equal(found, similarities(right, left).T)


@pytest.mark.parametrize("chunk", [8, 13, 4096])
def test_both_ways_equal_the_whole_matrix(chunk: int) -> None:
    images, texts, owners = made()
    scores = similarities(texts, images)
    found = rank_pairs(images, texts, owners, chunk=chunk)
    by_text = rank_rows(scores, torch.arange(len(texts)), owners)
    by_image = rank_rows(scores.T, owners, torch.arange(len(texts)))
    assert equal(found, PairRanks(by_text, by_image, torch.arange(300), found.top_captions, found.top_scores))
    assert int((by_text.equal > 0).sum()) > 60
    assert int((by_image.equal > 0).sum()) > 5
    assert torch.equal(found.top_scores, scores.T.topk(3).values)
    assert torch.equal(scores.T.gather(1, found.top_captions), found.top_scores)


def test_partial_results_of_processes_add_up_to_the_whole() -> None:
    images, texts, owners = made(count=700)
    whole = rank_pairs(images, texts, owners)
    parts: list[list[torch.Tensor]] = []
    for rank in range(3):
        held: list[torch.Tensor] = []

        def keep(tensor: torch.Tensor, held: list[torch.Tensor] = held) -> torch.Tensor:
            held.append(tensor)
            return tensor

        rank_pairs(images, texts, owners, share=(rank, 3), combine=keep)
        parts.append(held)
    sums = iter([sum(tensors) for tensors in zip(*parts, strict=True)])
    found = rank_pairs(images, texts, owners, share=(2, 3), combine=lambda _: next(sums))
    assert equal(found, whole)
    assert torch.equal(found.top_captions, whole.top_captions)
    assert torch.equal(found.top_scores, whole.top_scores)


def test_no_tensor_is_as_large_as_the_matrix() -> None:
    largest = 0

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else [result]:
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return result

    sizes = []
    for count in (1000, 2000):
        images, texts, owners = made(count, 3 * count)
        largest = 0
        with Watch():
            rank_pairs(images, texts, owners, chunk=128)
        sizes.append(largest)
        assert largest >= 255 * 128  # a block was seen
    assert sizes[0] < 1000 * 3000 / 40
    assert sizes[1] <= 2 * sizes[0]


def test_an_image_without_a_caption_asks_for_none_and_stands_in_the_gallery() -> None:
    images, texts = torch.eye(4), torch.eye(4)[[0, 0, 2]]
    texts[2] = torch.nn.functional.normalize(torch.tensor([0.0, 0, 1, 2]), dim=0)
    found = rank_pairs(images, texts, torch.tensor([0, 0, 2]))
    assert found.asking.tolist() == [0, 2]
    assert len(found.by_image.greater) == 2
    assert found.by_text.greater.tolist() == [0, 0, 1]  # the fourth image has no caption and is nearer to the third


def test_what_cannot_be_ranked_is_refused() -> None:
    eye, places = torch.eye(3), torch.arange(3)
    with pytest.raises(ValueError, match="cannot be ranked"):
        rank_pairs(eye, eye[:0], places[:0])
    with pytest.raises(ValueError, match="places must be from 0 to 1"):
        rank_pairs(eye[:2], eye, places)
    for value in (torch.nan, torch.inf):
        broken = eye.clone()
        broken[1, 2] = value
        with pytest.raises(DataError, match="1 of 3 images have a feature that is NaN or infinite"):
            rank_pairs(broken, eye, places)
        with pytest.raises(DataError, match="1 of 3 captions have"):
            rank_pairs(eye, broken, places)
