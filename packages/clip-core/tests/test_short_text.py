"""The short way through the text tower (towers.short_text) and what blocks leave out (layers.reading).

The long way, every position of the padded batch, is `text_features_and_tokens`.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import clip_core
import clip_core.towers.text
from clip_core.building import build
from clip_core.layers.block import Transformer
from clip_core.layers.reading import FirstPosition, plant
from clip_core.towers.short_text import readable

WORDS = 6  # few, so that texts often begin alike


def model_with(**changes: object) -> clip_core.Clip:
    """A model of `tiny`'s shape with an untrained text tower that differs from it in `changes`."""
    torch.manual_seed(0)
    config = clip_core.get_config("tiny")
    return build(dataclasses.replace(config, text=dataclasses.replace(config.text, **changes)))


@pytest.fixture(scope="module")
def models() -> dict[str, clip_core.Clip]:
    return {
        "highest_id": model_with(),
        "eos": model_with(pool="eos", eos_id=2),
        "first": model_with(pool="first"),
        "last": model_with(pool="last"),
        "layer_scale": model_with(layer_scale=0.5, projection="linear_bias"),
    }


batches = st.integers(1, 12).flatmap(
    lambda length: st.lists(
        st.lists(st.integers(0, WORDS - 1), min_size=length, max_size=length), min_size=1, max_size=40
    )
)


@settings(max_examples=40, deadline=None)
@given(rows=batches, pool=st.sampled_from(["highest_id", "eos", "first", "last", "layer_scale"]))
@torch.no_grad()
def test_features_are_those_of_the_padded_batch(models, rows: list[list[int]], pool: str) -> None:
    tower, tokens = models[pool].text_tower, torch.tensor(rows)
    expected, _ = tower.text_features_and_tokens(tokens)
    torch.testing.assert_close(tower.text_features(tokens), expected, atol=1e-5, rtol=1e-5)


@settings(max_examples=50, deadline=None)
@given(rows=batches, size=st.integers(1, 60), seed=st.integers(0, 99))
def test_trees_hold_every_prefix_once_and_every_text(rows: list[list[int]], size: int, seed: int) -> None:
    tokens = np.array(rows)
    last = np.random.default_rng(seed).integers(0, tokens.shape[1], len(tokens))
    trees = plant(tokens, last, size)
    assert sorted(row for tree in trees for row in tree.rows.tolist()) == list(range(len(rows)))
    for tree in trees:
        assert len(tree.tokens) <= size or len(tree.rows) == 1
        prefixes = set()
        for place, row in enumerate(tree.rows.tolist()):
            nodes = tree.nodes[place, : last[row] + 1]
            assert tree.tokens[nodes].tolist() == rows[row][: last[row] + 1]
            assert tree.positions[nodes].tolist() == list(range(last[row] + 1))
            assert tree.last[place] == last[row]
            prefixes |= {tuple(rows[row][: end + 1]) for end in range(last[row] + 1)}
        if len({length // 8 for length in last}) == 1:  # texts of one tree are sorted by length first
            assert len(tree.tokens) == len(prefixes)
        assert torch.equal(tree.nodes.flatten()[tree.first], torch.arange(len(tree.tokens)))


def test_gradients_are_those_of_the_padded_batch(tiny: clip_core.Bundle) -> None:
    tokens = tiny.tokenizer(["a photo of a cat", "a photo of a dog", "a dog", "a photo of a cat", "b " * 99])
    weights = torch.randn(len(tokens), 128) / 100  # gradients of about 1
    gradients = []
    for checkpointing in (False, True):
        for features in (
            lambda: tiny.model.text_features(tokens),
            lambda: tiny.model.text_features_and_tokens(tokens)[0],
        ):
            tiny.model.set_grad_checkpointing(checkpointing)
            tiny.model.zero_grad()
            (features() * weights).sum().backward()
            named = tiny.model.named_parameters()
            gradients.append({name: value.grad for name, value in named if value.grad is not None})
    assert len(gradients[0]) > 20
    for others in gradients[1:]:
        assert gradients[0].keys() == others.keys()
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(gradient, others[name], atol=1e-5, rtol=1e-4, msg=name)


def test_the_short_way_is_taken_where_it_is_shorter_and_computes_each_prefix_once(
    tiny: clip_core.Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    hook = tiny.model.transformer.resblocks[0].register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].shape[:-1].numel())
    )
    texts = tiny.tokenizer(["a", "a", "a b"])  # start, a, end; start, a, b, end: five prefixes
    tiny.model.encode_text(texts)
    assert seen == [5]
    full = torch.randint(1, 400, (3, 32))
    full[:, -1] = 511
    tiny.model.encode_text(full)
    assert seen == [5, 96]
    hook.remove()


def test_long_texts_do_not_pad_short_ones_without_limit() -> None:
    tokens = np.zeros((400, 64), dtype=np.int64)
    tokens[:, 0] = np.arange(400)
    last = np.full(400, 0)
    last[::10] = 63
    trees = plant(tokens, last, 512)
    assert max(tree.nodes.numel() for tree in trees) <= 4 * 512


def test_ids_that_a_trace_or_a_transform_holds_are_not_looked_at() -> None:
    tokens = torch.zeros(2, 4, dtype=torch.long)
    found: list[bool] = []

    def look(ids: torch.Tensor) -> torch.Tensor:
        found.append(readable(ids))
        return ids + 1

    torch.vmap(look)(tokens)
    assert readable(tokens)
    assert not readable(tokens.to("meta"))
    assert found == [False]


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch maps attention over a loop
def test_vmapped_texts_have_the_same_features(tiny: clip_core.Bundle) -> None:
    tokens = tiny.tokenizer(["a cat", "two dogs"])
    with torch.no_grad():
        mapped = torch.vmap(lambda row: tiny.model.text_features(row[None])[0])(tokens)
        torch.testing.assert_close(mapped, tiny.model.text_features(tokens), atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("lengths", [None, [3, 9]])
@pytest.mark.parametrize("seen", [True, False], ids=["ids on the CPU", "ids elsewhere"])
def test_transforms_of_the_weights_have_the_same_gradients(
    lengths: list[int] | None, seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_with().double()
    tokens = torch.zeros(2, 32, dtype=torch.int64)
    tokens[:, 0], tokens[0, 2], tokens[1, 8] = 1, 511, 511
    if not seen:
        monkeypatch.setattr(clip_core.towers.text, "readable", lambda tokens: False)

    def total(weights: dict[str, torch.Tensor]) -> torch.Tensor:
        output = torch.func.functional_call(model, weights, (None, tokens, lengths))
        return (output.text_features * torch.linspace(-1, 2, 128, dtype=torch.float64)).sum()

    weights = dict(model.named_parameters())
    name = "token_embedding.weight"
    (expected,) = torch.autograd.grad(total(weights), [weights[name]])
    torch.testing.assert_close(torch.func.grad(total)(weights)[name], expected, atol=1e-12, rtol=0)
    both = torch.vmap(total)({name: torch.stack([value, value]).detach() for name, value in weights.items()})
    torch.testing.assert_close(both, total(weights).detach().expand(2), atol=1e-12, rtol=0)


@pytest.mark.parametrize("layer_scale", [None, 0.3])
def test_the_first_position_alone_is_the_first_of_all(layer_scale: float | None) -> None:
    torch.manual_seed(0)
    stack = Transformer(32, 3, 4, 64, "gelu", causal=False, layer_scale=layer_scale)
    for parameter in stack.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(5, 7, 32)
    expected = stack(x)[:, :1]
    torch.testing.assert_close(stack.read(x, FirstPosition()), expected, atol=1e-5, rtol=1e-5)
    first = torch.autograd.grad(stack.read(x, FirstPosition()).square().sum(), list(stack.parameters()))
    second = torch.autograd.grad(expected.square().sum(), list(stack.parameters()))
    for mine, theirs in zip(first, second, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
