"""Features of one input do not depend on the others in its batch: to rounding, and to the last bit where asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import clip_core

COUNT = 24
BOUND = 2e-6
"""Largest difference in a feature vector of length 1, float32."""


@pytest.fixture(scope="module")
def bundle() -> clip_core.Bundle:
    torch.manual_seed(0)
    return clip_core.create("tiny")


@pytest.fixture(scope="module", params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def inputs(bundle: clip_core.Bundle) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, 400, (COUNT, 32), generator=generator)
    ends = torch.randint(1, 32, (COUNT,), generator=generator)
    tokens[torch.arange(COUNT), ends] = 511
    tokens[torch.arange(32) > ends[:, None]] = 0
    return {"image": torch.randn(COUNT, 3, 32, 32, generator=generator), "text": tokens}


@pytest.fixture(scope="module")
def alone(bundle: clip_core.Bundle, inputs: dict[str, torch.Tensor], threads: int) -> dict[str, torch.Tensor]:
    return {kind: encode(bundle, kind, inputs[kind], deterministic=True) for kind in inputs}


@torch.no_grad()
def encode(bundle: clip_core.Bundle, kind: str, values: torch.Tensor, **options: bool) -> torch.Tensor:
    method = bundle.model.encode_image if kind == "image" else bundle.model.encode_text
    return method(values, normalize=True, **options)


@pytest.mark.parametrize("kind", ["image", "text"])
@settings(max_examples=8, deadline=None)
@given(chosen=st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=COUNT))
def test_deterministic_features_are_the_same_bits_in_any_batch(bundle, inputs, alone, kind: str, chosen: list[int]):
    together = encode(bundle, kind, inputs[kind][chosen], deterministic=True)
    assert torch.equal(together, alone[kind][chosen])


@pytest.mark.parametrize("kind", ["image", "text"])
@settings(max_examples=8, deadline=None)
@given(chosen=st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=COUNT))
def test_ordinary_features_differ_between_batches_by_rounding(bundle, inputs, alone, kind: str, chosen: list[int]):
    together = encode(bundle, kind, inputs[kind][chosen])
    torch.testing.assert_close(together, alone[kind][chosen], atol=BOUND, rtol=0)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_no_inputs_give_no_features(bundle, inputs, kind: str) -> None:
    assert encode(bundle, kind, inputs[kind][:0], deterministic=True).shape == (0, 128)


def test_a_row_of_a_larger_tensor_gives_the_same_bits(bundle, inputs, alone) -> None:
    stored = torch.randn(3 * COUNT * 32 * 32 * 3 + 5)[5:].view(3 * COUNT, 3, 32, 32)  # begins off any alignment
    stored[7] = inputs["image"][0]
    assert torch.equal(encode(bundle, "image", stored[7:9], deterministic=True)[0], alone["image"][0])
    flipped = inputs["image"][:2].to(memory_format=torch.channels_last)
    assert torch.equal(encode(bundle, "image", flipped, deterministic=True), alone["image"][:2])
