"""Dropping tokens for training, as open_clip's `reduction_mask` does it: clip_core.tokenizer.reductions."""

from __future__ import annotations

import functools
import sys
import types
from collections import Counter
from typing import Any

import numpy as np
import open_clip.tokenizer as peer
import pytest
import torch

from clip_core.errors import ConfigError
from clip_core.tokenizer import ClipTokenizer, reduce_texts

pytestmark = pytest.mark.parity

TEXT = "a photo of a big red dog and two small cats"  # eleven tokens
ROOM = 4
ours = ClipTokenizer(context_length=ROOM + 2)
IDS = ours.encode(TEXT)
DRAWS = 4000

TAGS = {
    "photo": "NN",
    "dog": "NN",
    "cats": "NNS",
    "big": "JJ",
    "red": "JJ",
    "small": "JJ",
    "runs": "VBZ",
    "sees": "VBZ",
}


def tagger(text: str) -> list[tuple[str, str]]:
    return [(word, TAGS.get(word, "DT")) for word in text.split()]


def drawn(reduction: Any, texts: list[str], seed: int = 0) -> torch.Tensor:
    return reduce_texts(ours, texts, reduction, np.random.default_rng(seed)).tokens


@pytest.mark.parametrize("reduction", ["simple", "random", "shuffle"])
def test_chance_is_that_of_open_clip(reduction: str) -> None:
    """Where each position's token comes from, in many draws of both: within five standard errors."""
    torch.manual_seed(0)
    theirs = peer.SimpleTokenizer(context_length=ROOM + 2, reduction_mask=reduction)([TEXT] * DRAWS)
    mine = drawn(reduction, [TEXT] * DRAWS)
    assert (mine[:, 0] == ours.sot_token_id).all()
    assert (mine[:, -1] == ours.eot_token_id).all()
    for column in range(1, ROOM + 1):
        left, right = (Counter(rows[:, column].tolist()) for rows in (mine, theirs))
        for index in set(IDS):
            share = (left[index] + right[index]) / (2 * DRAWS)
            bound = 5 * (2 * share * (1 - share) / DRAWS) ** 0.5
            assert abs(left[index] - right[index]) / DRAWS <= bound, (column, index)
    # Which rows can come up at all is the same too, where they are few.
    if reduction == "simple":
        assert set(map(tuple, mine.tolist())) == set(map(tuple, theirs.tolist()))


@pytest.mark.parametrize("reduction", ["simple", "random", "shuffle"])
def test_what_fits_is_left_alone(reduction: str) -> None:
    texts = ["", "a photo of a", "a red dog"]
    theirs = peer.SimpleTokenizer(context_length=ROOM + 2, reduction_mask=reduction)
    assert torch.equal(drawn(reduction, texts), theirs(texts))
    assert torch.equal(drawn(reduction, texts), ours(texts))


def test_order_and_stretch() -> None:
    for row in drawn("random", [TEXT] * 50)[:, 1:-1].tolist():
        rest = iter(IDS)
        assert all(index in rest for index in row)  # each is found behind the one before
    for row in drawn("simple", [TEXT] * 50)[:, 1:-1].tolist():
        assert any(row == IDS[first : first + ROOM] for first in range(len(IDS)))
    assert any(row != sorted(row, key=IDS.index) for row in drawn("shuffle", [TEXT] * 50)[:, 1:-1].tolist())


def test_a_seed_says_it_all() -> None:
    texts = [TEXT, TEXT + " again", "short"]
    assert torch.equal(drawn("shuffle", texts, 7), drawn("shuffle", texts, 7))
    assert not torch.equal(drawn("shuffle", texts * 9, 7), drawn("shuffle", texts * 9, 8))


def test_lengths_are_those_of_the_whole_texts() -> None:
    batch = reduce_texts(ours, [TEXT, "a dog"], "random", np.random.default_rng(0))
    assert batch.lengths.tolist() == [len(IDS) + 2, 4]
    assert batch.truncated == 1
    one = reduce_texts(ours, TEXT, "random", np.random.default_rng(0), context_length=5)
    assert one.tokens.shape == (1, 5)


def stub_of_nltk(monkeypatch: pytest.MonkeyPatch) -> None:
    """nltk, with the tags above in place of its model."""
    stub = types.ModuleType("nltk")
    stub.tokenize = types.SimpleNamespace(word_tokenize=str.split)  # type: ignore[attr-defined]
    stub.word_tokenize = str.split  # type: ignore[attr-defined]
    stub.pos_tag = lambda words: [(word, TAGS.get(word, "DT")) for word in words]  # type: ignore[attr-defined]
    stub.download = lambda name: True  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nltk", stub)


def test_syntax_is_that_of_open_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stable sort: which of equal words open_clip keeps depends on the processor, as numpy's default does."""
    stub_of_nltk(monkeypatch)
    stable = functools.partial(np.argsort, kind="stable")
    monkeypatch.setattr(np, "argsort", stable)
    words = [*TAGS, "the", "a", "of", "unbelievability"]
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(words, rng.integers(1, 40))) for _ in range(200)]
    theirs = peer.SimpleTokenizer(context_length=ROOM + 2, reduction_mask="syntax")(texts)
    generator = np.random.default_rng(0)
    assert torch.equal(reduce_texts(ours, texts, "syntax", generator, tagger=tagger).tokens, theirs)
    assert torch.equal(reduce_texts(ours, texts, "syntax", generator).tokens, theirs)  # nltk is the default


def test_syntax_keeps_nouns_then_adjectives() -> None:
    rows = reduce_texts(ours, [TEXT], "syntax", np.random.default_rng(0), tagger=tagger).tokens
    assert ours.decode(rows[0], skip_special_tokens=True) == "photo big dog cats "


def test_syntax_without_nltk_or_its_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk", None)
    with pytest.raises(ConfigError, match=r"needs nltk: pip install .*clip-core\[syntax\].* or pass `tagger`"):
        reduce_texts(ours, [TEXT], "syntax", np.random.default_rng(0))
    stub_of_nltk(monkeypatch)

    def lacking(text: str) -> list[str]:
        raise LookupError("punkt_tab")

    monkeypatch.setattr("nltk.word_tokenize", lacking)
    with pytest.raises(ConfigError, match="nltk.downloader punkt_tab averaged_perceptron_tagger_eng"):
        reduce_texts(ours, [TEXT], "syntax", np.random.default_rng(0))


def test_unknown_reduction() -> None:
    with pytest.raises(ConfigError, match="'simpel'; allowed: 'simple', 'random', 'shuffle', 'syntax'"):
        drawn("simpel", [TEXT])
