"""Texts without padding: clip_core.layers.packing, and the lengths that `encode_text` takes.

Ids of a GPU are stood in for by making the tower believe that it cannot read them; nothing else tells them apart.
The long way, every position of the padded batch, is `text_features_and_tokens`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import clip_core
import clip_core.towers.text
from clip_core.building import build
from clip_core.errors import ConfigError
from clip_core.layers.packing import pack, sort_texts
from clip_core.layers.reading import PrefixTree
from clip_core.towers.short_text import shorten

END = 511


def model_with(layout: str = "flat", **changes: Any) -> clip_core.Clip:
    """A model of `tiny`'s shape in float64 whose untrained text tower differs from it in `changes`."""
    torch.manual_seed(0)
    config = clip_core.get_config("tiny")
    text = dataclasses.replace(config.text, **changes)
    return build(dataclasses.replace(config, layout=layout, text=text)).double()


@pytest.fixture(scope="module")
def model() -> clip_core.Clip:
    return model_with()


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids that are not on the CPU, as far as the tower can tell."""
    monkeypatch.setattr(clip_core.towers.text, "readable", lambda tokens: False)


def texts(lengths: list[int], columns: int = 32) -> Tensor:
    """Rows that share nothing, of these lengths, with the end of text as their last token."""
    generator = torch.Generator().manual_seed(len(lengths))
    tokens = torch.zeros(len(lengths), columns, dtype=torch.int64)
    for row, length in enumerate(lengths):
        tokens[row, :length] = torch.randint(1, 500, (length,), generator=generator)
        tokens[row, length - 1] = END
    return tokens


def gradients(model: clip_core.Clip, features: Callable[[], Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The features and what each parameter gets from a fixed upstream gradient."""
    model.zero_grad()
    out = features()
    (out * torch.linspace(-1, 2, out.numel(), dtype=torch.float64).view_as(out)).sum().backward()
    return out.detach(), {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def count_positions(tower: torch.nn.Module, block: int = 0) -> list[int]:
    """A list that grows by the number of positions that enter the MLP of a block, at each call."""
    seen: list[int] = []
    tower.transformer.resblocks[block].mlp.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].shape[:-1].numel())
    )
    return seen


BATCHES = {
    "mixed": [5, 2, 32, 9, 1, 9, 17],
    "one": [7],
    "one token": [1],
    "all full": [32, 32, 32],
    "all of one token": [1, 1, 1, 1],
}


def test_logits_take_lengths(unread: None) -> None:
    made = model_with("flat")
    tokens, lengths = texts(BATCHES["mixed"]), BATCHES["mixed"]
    images = torch.randn(2, 3, *made.visual.image_size, dtype=torch.float64)
    seen = count_positions(made.text_tower)
    per_image, per_text = made.get_logits(images, tokens, lengths)
    assert seen == [sum(lengths)]
    torch.testing.assert_close(per_image, made.get_logits(images, tokens)[0], atol=1e-12, rtol=1e-12)
    assert torch.equal(per_text, per_image.T)


def test_towers_that_compute_whole_rows_make_no_use_of_lengths() -> None:
    made = model_with(causal=False)  # as MobileCLIP-S1 has it
    tokens = texts([5, 9])
    assert torch.equal(made.encode_text(tokens, lengths=[1, 1]), made.encode_text(tokens))
    with pytest.raises(ConfigError, match="length 1 for row 0"):
        model_with().encode_text(tokens, lengths=[1, 1])


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("layout", ["flat", "nested"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_features_and_gradients_are_those_of_the_padded_batch(
    batch: str, layout: str, dtype: torch.dtype, unread: None
) -> None:
    made = model_with(layout)
    lengths = BATCHES[batch]
    tokens = texts(lengths).to(dtype)
    first, last = count_positions(made.text_tower), count_positions(made.text_tower, -1)
    mine = gradients(made, lambda: made.encode_text(tokens, lengths=lengths))
    assert (first, last) == ([sum(lengths)], [len(lengths)])
    padded = gradients(made, lambda: made.text_tower.text_features_and_tokens(tokens)[0])
    assert (mine[0] - padded[0]).abs().max() <= 1e-12 * padded[0].abs().max()
    assert mine[1].keys() == padded[1].keys()
    assert any(name.endswith("positional_embedding") for name in mine[1])
    for name, gradient in padded[1].items():
        assert (mine[1][name] - gradient).abs().max() <= 1e-12 * gradient.abs().max(), name


@settings(max_examples=40, deadline=None)
@given(data=st.data(), pool=st.sampled_from(["highest_id", "eos", "first"]))
@torch.no_grad()
def test_any_rows_with_lengths_that_reach_far_enough(towers: dict[str, Any], data: st.DataObject, pool: str) -> None:
    columns = data.draw(st.integers(1, 12))
    row = st.lists(st.integers(0, 5), min_size=columns, max_size=columns)
    tokens, tower = torch.tensor(data.draw(st.lists(row, min_size=1, max_size=12))), towers[pool]
    read = tower._read_positions(tokens)
    lengths = torch.tensor([data.draw(st.integers(int(place) + 1, columns)) for place in read])
    expected, _ = tower.text_features_and_tokens(tokens)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clip_core.towers.text, "readable", lambda tokens: False)
        features = tower.text_features(tokens, lengths)
    torch.testing.assert_close(features, expected, atol=1e-12, rtol=1e-12)
    assert torch.equal(tower.text_features(tokens, lengths), tower.text_features(tokens))


@pytest.fixture(scope="module")
def towers() -> dict[str, Any]:
    kinds = {"highest_id": {}, "eos": {"pool": "eos", "eos_id": 2}, "first": {"pool": "first"}}
    return {name: model_with("nested", **changes).text for name, changes in kinds.items()}


@pytest.mark.parametrize("seen", [True, False], ids=["ids on the CPU", "ids elsewhere"])
def test_what_stands_behind_the_end_changes_nothing_at_all(
    model: clip_core.Clip, seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not seen:
        monkeypatch.setattr(clip_core.towers.text, "readable", lambda tokens: False)
    lengths = BATCHES["mixed"]
    clean = texts(lengths)
    behind = torch.arange(32) >= torch.tensor(lengths)[:, None]
    junk = torch.where(behind, torch.randint(1, 500, clean.shape), clean)
    assert not torch.equal(clean, junk)
    before, after = (gradients(model, lambda t=t: model.encode_text(t, lengths=lengths)) for t in (clean, junk))
    assert torch.equal(before[0], after[0])
    for name, gradient in before[1].items():
        assert torch.equal(gradient, after[1][name]), name


@torch.no_grad()
def test_a_literal_end_of_text_is_where_the_padded_batch_is_read(model: clip_core.Clip, unread: None) -> None:
    lengths = [12, 20]
    tokens = texts(lengths)
    tokens[1, 4] = END
    expected, _ = model.text_tower.text_features_and_tokens(tokens)
    torch.testing.assert_close(model.encode_text(tokens, lengths=lengths), expected, atol=1e-12, rtol=0)
    assert not torch.allclose(expected[1], model.text_tower.text_features_and_tokens(texts(lengths))[0][1], atol=1e-3)


@torch.no_grad()
def test_lengths_come_from_the_tokenizer_and_may_be_those_of_uncut_texts(tiny: clip_core.Bundle, unread: None) -> None:
    tokens, lengths = tiny.tokenizer.tokenize(["a cat", "two dogs " * 50])
    assert int(lengths.max()) > tokens.shape[1]
    seen = count_positions(tiny.model)
    expected, _ = tiny.model.text_features_and_tokens(tokens)
    for each in (lengths, lengths.int(), lengths.tolist(), tuple(lengths.tolist()), lengths.numpy()):
        torch.testing.assert_close(tiny.model.encode_text(tokens, lengths=each), expected, atol=1e-5, rtol=0)
    both = tiny.model(None, tokens, lengths)
    normed = torch.nn.functional.normalize(expected, dim=-1)
    torch.testing.assert_close(both.text_features, normed, atol=1e-5, rtol=0)
    assert seen == [64] + 6 * [4 + 32]


@torch.no_grad()
def test_a_row_that_is_longer_than_its_length_is_nan_or_an_error(
    model: clip_core.Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = texts([5, 9, 3])
    with pytest.raises(ConfigError, match="length 8 for row 1, which ends with its token 9; allowed: 9 or more"):
        model.encode_text(tokens, lengths=[5, 8, 3])
    expected = model.encode_text(tokens)
    monkeypatch.setattr(clip_core.towers.text, "readable", lambda tokens: False)
    features = model.encode_text(tokens, lengths=[5, 8, 3])
    assert features[1].isnan().all()
    torch.testing.assert_close(features[::2], expected[::2], atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([5], r"lengths of shape \(1,\); allowed: 3 integers on the CPU, as tokenizer"),
        ([[5, 9, 3]], r"lengths of shape \(1, 3\)"),
        (torch.tensor(5), r"lengths of shape \(\)"),
        ([], r"lengths of shape \(0,\)"),
        ([5, 0, 3], "length 0 for row 1; allowed: 1 or more"),
        ([5, 9, -3], "length -3 for row 2"),
        ([5.0, 9.0, 3.0], "lengths of torch.float32"),
        ([True, True, True], "lengths of torch.bool"),
        (["a", "b", "c"], "lengths of type list"),
        (torch.zeros(3, dtype=torch.int64, device="meta"), "lengths on meta, which it would wait for"),
    ],
    ids=str,
)
@pytest.mark.parametrize("causal", [True, False])
def test_wrong_lengths_are_refused_also_where_they_are_not_used(causal: bool, lengths: Any, message: str) -> None:
    made = model_with("nested", causal=causal, layers=1)
    with pytest.raises(ConfigError, match=message):
        made.encode_text(texts([5, 9, 3]), lengths=lengths)


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [{"pool": "last"}, {"causal": False, "pool": "last"}, {"causal": False}, {"class_token": True}],
    ids=str,
)
@pytest.mark.parametrize("seen", [True, False], ids=["ids on the CPU", "ids elsewhere"])
def test_towers_that_need_whole_rows_are_not_changed_by_lengths(
    changes: dict[str, Any], seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not seen:
        monkeypatch.setattr(clip_core.towers.text, "readable", lambda tokens: False)
    made = model_with("nested", **changes)
    tokens = texts([5, 9, 3])
    assert torch.equal(made.encode_text(tokens, lengths=[5, 9, 3]), made.encode_text(tokens))


@torch.no_grad()
def test_deterministic_features_are_not_changed_by_lengths(model: clip_core.Clip, unread: None) -> None:
    tokens = texts([5, 9, 3])
    alone = model.encode_text(tokens, lengths=[5, 9, 3], deterministic=True)
    assert torch.equal(alone, model.encode_text(tokens, deterministic=True))


@torch.no_grad()
def test_a_list_of_lengths_is_on_no_device(model: clip_core.Clip, unread: None) -> None:
    tokens = texts([5, 9, 3])
    expected = model.encode_text(tokens, lengths=[5, 9, 3])
    with torch.device("meta"):
        assert torch.equal(model.encode_text(tokens, lengths=[5, 9, 3]), expected)


@torch.no_grad()
def test_no_texts_are_no_features(model: clip_core.Clip, unread: None) -> None:
    none = texts([])
    for lengths in (None, [], torch.zeros(0, dtype=torch.int64)):
        assert model.encode_text(none, lengths=lengths).shape == (0, 128)


@torch.no_grad()
def test_a_transform_goes_by_no_lengths(model: clip_core.Clip) -> None:
    tokens = texts([5, 9, 3])
    seen = count_positions(model.text_tower)
    torch._dynamo.reset()
    compiled = torch.compile(model.encode_text, backend="eager", fullgraph=True)
    features = compiled(tokens, lengths=[5, 9, 3])
    torch.testing.assert_close(features, model.encode_text(tokens), atol=1e-12, rtol=0)
    assert seen == [3 * 32, 5 + 9 + 3]


def test_nothing_on_the_device_is_read(unread: None) -> None:
    # On the meta device there are no values: whatever asks for one raises.
    made = model_with().to("meta")
    tokens = torch.empty(4, 32, dtype=torch.int64, device="meta")
    features = made.encode_text(tokens, lengths=[5, 9, 3, 40])
    features.sum().backward()
    assert features.shape == (4, 128)
    assert made.positional_embedding.grad.shape == (32, 96)


def test_checkpointing_and_frozen_layers(unread: None) -> None:
    lengths = BATCHES["mixed"]
    tokens, made = texts(lengths), model_with()
    _, expected = gradients(made, lambda: made.encode_text(tokens, lengths=lengths))
    made.set_grad_checkpointing()
    _, recomputed = gradients(made, lambda: made.encode_text(tokens, lengths=lengths))
    for name, gradient in expected.items():
        assert torch.equal(gradient, recomputed[name]), name
    made.lock_text_tower(1)
    for parameter in made.parameters():
        parameter.grad = None
    _, unlocked = gradients(made, lambda: made.encode_text(tokens, lengths=lengths))
    assert unlocked.keys() == {"text_projection"}
    assert torch.equal(unlocked["text_projection"], expected["text_projection"])


@pytest.mark.parametrize("seen", [True, False], ids=["ids on the CPU", "ids elsewhere"])
def test_autocast_to_bfloat16_is_as_near_as_padded(
    tiny: clip_core.Bundle, seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = BATCHES["mixed"]
    tokens = texts(lengths)
    exact = tiny.model.text_features_and_tokens(tokens)[0].detach()
    if not seen:
        monkeypatch.setattr(clip_core.towers.text, "readable", lambda tokens: False)
    with torch.autocast("cpu", torch.bfloat16):
        features = tiny.model.encode_text(tokens, lengths=lengths)
        padded = tiny.model.text_features_and_tokens(tokens)[0]
    assert features.dtype == padded.dtype
    errors = [float((each.detach() - exact).norm() / exact.norm()) for each in (features, padded)]
    assert 0 < errors[0] < 2 * errors[1]
    features.float().sum().backward()
    assert tiny.model.token_embedding.weight.grad.isfinite().all()


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=20), size=st.integers(1, 40))
def test_packed_and_sorted_texts_hold_every_token_once(lengths: list[int], size: int) -> None:
    tokens = torch.arange(1, 9 * len(lengths) + 1).view(-1, 9)
    counts = np.array(lengths)
    rows = [row[:length] for row, length in zip(tokens.tolist(), lengths, strict=True)]
    packed = pack(tokens, counts)
    assert packed.tokens.tolist() == [token for row in rows for token in row]
    assert packed.positions.tolist() == [place for row in rows for place in range(len(row))]
    assert (packed.longest, packed.starts.dtype) == (max(lengths), torch.int32)
    assert packed.tokens[packed.ends].tolist() == [row[-1] for row in rows]
    assert packed.starts.diff().tolist() == lengths
    parts = sort_texts(tokens, counts, size)
    assert sorted(row for part in parts for row in part.rows.tolist()) == list(range(len(rows)))
    assert len(sort_texts(tokens, counts)) == 1
    for part in parts:
        assert len(part.tokens) <= size or len(part.rows) == 1
        held = [rows[row] for row in part.rows.tolist()]
        assert part.tokens.tolist() == [token for row in held for token in row]
        assert part.positions.tolist() == [place for row in held for place in range(len(row))]
        assert [length for count, length in part.runs for _ in range(count)] == [len(row) for row in held]
        assert part.tokens[part.ends].tolist() == [row[-1] for row in held]
    for one, following in itertools.pairwise(parts):
        assert len(one.tokens) + following.runs[0][1] > size  # no part could have held one more


def test_texts_that_share_much_go_as_a_tree_and_others_sorted_in_one_part_with_gradients() -> None:
    lengths = [20] * 400
    different, alike = texts(lengths), texts(lengths)
    alike[:, :15] = alike[0, :15]
    read, device = torch.full((400,), 19), torch.device("cpu")
    assert isinstance(shorten(alike, read, device)[0], PrefixTree)
    assert len(shorten(alike, read, device)) == len(shorten(different, read, device)) == 1
    with torch.no_grad():
        assert len(shorten(alike, read, device)) > 1
        parts = shorten(different, read, device)
    assert [type(part).__name__ for part in parts] == ["SortedTexts"] * len(parts)
    assert len(parts) == 2


@torch.no_grad()
def test_ids_of_the_cpu_are_packed_for_weights_elsewhere() -> None:
    (part,) = shorten(texts([5, 9, 3]), torch.tensor([4, 8, 2]), torch.device("meta"))
    assert part.tokens.device.type == "meta"
    assert (part.tokens.shape, part.longest) == ((17,), 9)
