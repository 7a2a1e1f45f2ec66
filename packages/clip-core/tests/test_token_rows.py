"""Rows of ids that a model would silently misread are refused: clip_core.towers.token_rows."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

import clip_core
from clip_core.building import build
from clip_core.config import HfTokenizerConfig
from clip_core.errors import ConfigError
from clip_core.model import Clip
from clip_core.presets import hf
from clip_core.towers.token_rows import check_rows

PAD, END, LENGTH, VOCABULARY = 1, 1, 8, 50


def untrained(**text: Any) -> Clip:
    """`tiny` with another text tower, and a tokenizer that pads with 1 as SigLIP's does."""
    config = clip_core.get_config("tiny")
    return build(
        dataclasses.replace(
            config,
            layout="nested",
            text=dataclasses.replace(config.text, context_length=LENGTH, vocab_size=VOCABULARY, **text),  # type: ignore[arg-type]
            tokenizer=HfTokenizerConfig(context_length=LENGTH, source="org/name", clean="canonicalize", pad_id=PAD),
        ),
        None,
    )


@pytest.fixture(
    scope="module",
    params=[{"causal": False, "pool": "last"}, {"causal": False}, {"pool": "last"}, {"class_token": True}],
)
def whole(request: pytest.FixtureRequest) -> Clip:
    """A model that was trained on whole rows."""
    return untrained(**request.param)


def row(*ids: int, pad: int = PAD, length: int = LENGTH) -> torch.Tensor:
    return torch.tensor([[*ids, *[pad] * (length - len(ids))]])


def test_rows_of_its_tokenizer_pass(whole: Clip) -> None:
    for ids in (row(5, 6, END), row(END), row(5, 5, 5, 5, 5, 5, 5, END), row(5, 6, 7, 8, 9, 10, END)):
        assert whole.encode_text(ids).shape == (1, whole.config.embed_dim)
    assert whole.encode_text(row(5)[:0]).shape == (0, whole.config.embed_dim)


@pytest.mark.parametrize("length", [3, 7, 9])
def test_another_length_is_refused(whole: Clip, length: int) -> None:
    with pytest.raises(ConfigError, match=rf"encode_text got .*{length}.*; allowed: .*tokenizer that comes with"):
        whole.encode_text(row(5, 6, END, length=length))


def test_other_padding_is_refused(whole: Clip) -> None:
    ids = torch.cat([row(5, 6, END), row(5, 6, END, pad=0)])
    with pytest.raises(ConfigError, match="rows padded with 0, such as row 1; allowed: 1"):
        whole.encode_text(ids)


@pytest.mark.parametrize("bad", [VOCABULARY, -1, 49407])
def test_ids_of_another_vocabulary_are_refused(whole: Clip, bad: int) -> None:
    for model in (whole, untrained()):
        with pytest.raises(ConfigError, match=rf"token id {bad}; allowed: 0 to {VOCABULARY - 1}"):
            model.encode_text(row(5, bad, END))


@pytest.mark.parametrize("kind", ["hf", "modern"])
def test_other_padding_is_refused_where_a_tower_leaves_its_own_out(kind: str) -> None:
    model = untrained()
    if kind == "hf":
        changes = {"width": 32, "vocab_size": VOCABULARY, "context_length": LENGTH, "pad_id": PAD}
        text: Any = dataclasses.replace(hf.ROBERTA_BASE, **changes)
    else:
        changes = {"vocab_size": VOCABULARY, "context_length": LENGTH, "pad_id": PAD, "eos_id": 2}
        text = dataclasses.replace(clip_core.get_config("moderntext-naflex_ViT-B-32").text, **changes)
    config = dataclasses.replace(model.config, text=text)
    check_rows(torch.cat([row(5, 6, 2), row(5, 5, 5, 5, 5, 5, 5, 2), row(5, 6, 7, 8, 9, 10, 2)]), config)
    check_rows(row(5, 2, length=2), config)
    with pytest.raises(ConfigError, match="rows padded with 0, such as row 0; allowed: 1"):
        check_rows(row(5, 6, 2, pad=0), config)


def test_rows_without_an_end_are_refused_where_the_end_is_read() -> None:
    model = untrained(pool="eos", eos_id=END)
    with pytest.raises(ConfigError, match=f"without the end of text, such as row 1; allowed: rows with the id {END}"):
        model.encode_text(torch.cat([row(5, 6, END), row(5, 6, 7, 8, 9, 10, 11, 12)]))


def test_causal_models_that_read_the_end_take_shorter_rows() -> None:
    model = untrained(pool="eos", eos_id=END)
    short, long = row(5, 6, END, length=3), row(5, 6, END, pad=0)
    torch.testing.assert_close(model.encode_text(short), model.encode_text(long))


def test_values_elsewhere_are_not_looked_at(whole: Clip) -> None:
    check_rows(torch.full((2, LENGTH), VOCABULARY, device="meta"), whole.config)
    with pytest.raises(ConfigError, match="rows of 3 ids"):
        check_rows(torch.zeros(2, 3, dtype=torch.int64, device="meta"), whole.config)
