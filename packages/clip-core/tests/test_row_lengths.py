"""Encoding texts without their padding: clip_core.towers.row_lengths."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clip_core.towers import row_lengths
from clip_core.towers.row_lengths import encode_unpadded

PAD = 7


class Encoder:
    """Weighs each id by its place; remembers the shapes that it was given."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, tokens: Tensor) -> Tensor:
        self.shapes.append(tuple(tokens.shape))
        places = torch.arange(1.0, tokens.shape[1] + 1)
        return torch.where(tokens == PAD, 0, tokens * places).sum(dim=1, keepdim=True)


def rows(*lengths: int) -> Tensor:
    torch.manual_seed(0)
    tokens = torch.randint(1, PAD, (len(lengths), 20))
    return tokens.masked_fill(torch.arange(20) >= torch.tensor(lengths)[:, None], PAD)


@torch.no_grad()
def test_rows_go_sorted_by_length_and_come_back_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_lengths, "_TOKENS", 24)
    tokens, encoder = rows(3, 20, 6, 5, 0, 12, 11, 6), Encoder()
    features = encode_unpadded(encoder, tokens, PAD)
    assert encoder.shapes == [(1, 20), (2, 12), (4, 6), (1, 1)]  # 24 tokens at most, but never less than a row
    assert torch.equal(features, Encoder()(tokens))


def test_with_gradients_all_rows_go_at_once() -> None:
    encoder = Encoder()
    encode_unpadded(encoder, rows(3, 9, 6), PAD)
    assert encoder.shapes == [(3, 9)]


@torch.no_grad()
def test_padding_inside_a_text_is_no_end() -> None:
    tokens, encoder = rows(9), Encoder()
    tokens[0, 2] = PAD
    encode_unpadded(encoder, tokens, PAD)
    assert encoder.shapes == [(1, 9)]


@torch.no_grad()
@pytest.mark.parametrize("count", [0, 3])
def test_ids_that_cannot_be_looked_at_are_encoded_as_they_are(count: int) -> None:
    tokens, encoder = rows(3, 9, 6)[:count].to("meta" if count else "cpu"), Encoder()
    if count:
        encode_unpadded(lambda given: encoder.shapes.append(tuple(given.shape)) or given, tokens, PAD)
    else:
        assert encode_unpadded(encoder, tokens, PAD).shape == (0, 1)
    assert encoder.shapes == [(count, 20)]
