"""The very ids of open_clip's `SimpleTokenizer`: on generated strings over all of Unicode, and on known traps."""

from __future__ import annotations

import html
import itertools
from typing import Any

import ftfy
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_core.tokenizer import ClipTokenizer
from clip_core.tokenizer.cleaning import clean
from clip_core.tokenizer.vocabulary import load_vocabulary

pytestmark = pytest.mark.parity

STRINGS = 20_000
BATCH = 50

ours = ClipTokenizer()

# What cleaning, folding and splitting treat specially, alone or beside something else.
TRAPS = [
    *["'s", "'S", "'LL", "'ll", "'re", "'VE", "'t", "'D", "'m", "''s", "’s", "‘", "“", "”", "ʼ", "'", '"', "it's"],
    *[
        "<start_of_text>",
        "<END_OF_TEXT>",
        "<end_of_text>",
        "<start_of_text",
        "<ſtart_of_text>",
        "<|endoftext|>",
        "</w>",
    ],
    *[
        "&amp;",
        "&amp;amp;lt;",
        "&lt",
        "&lt;b&gt;",
        "&#39;",
        "&#x27;",
        "&#0;",
        "&#xD800;",
        "&#28;",
        "&eacute;",
        "&EACUTE;",
    ],
    *["&", "& ", "&&", "&nbsp;", "&notit;", "<", ">", "&#x110000;", "&#128512;", "&NotEqualTilde;"],
    *[
        "ſ",
        "'ſ",
        "K",
        "Å",
        "İ",
        "i̇",
        "ı",
        "ß",
        "ẞ",
        "Σ",
        "ΑΣ",
        "ς",
        "ﬁ",
        "ﬅ",
        "ŉ",
        "Ǆ",
        "ǅ",
        "\u0345",
        "a\u0345",
        "'\u0345",
    ],
    *["\0", "\x07", "\x0b", "\x0c", "\x1b", "\x1b[31m", "\x1c", "\x1f", "\x7f", "\x80", "\x85", "\x92", "\xa0", "\xad"],
    *[
        "\r\n",
        "\r",
        "\n",
        "\t",
        " ",
        "   ",
        "\u200b",
        "\u200d",
        "\u2028",
        "\u2029",
        "\u202e",
        "\u3000",
        "\ufeff",
        "\ufffc",
    ],
    *["\ud800", "\udfff", "\ud83d\ude00", "\ufffd", "\U0010ffff", "\ue000", "\u061c", "\u180e"],
    *[
        "é",
        "e\u0301",
        "Ã©",
        "â€™",
        "â€œ",
        "Ã ",
        "Â ",
        "Ã",
        "Â°",
        "œ",
        "Œ ",
        "×²",
        "é”a",
        "¡",
        "°",
        "µ",
        "€",
        "£5",
        "½",
        "²",
        "⅓",
    ],
    *[
        "–",
        "—",
        "…",
        "·",
        "®",
        "™",
        "Ａ",
        "ｶﾞ",
        "日本語",
        "한국어",
        "ไทย",
        "العربية",
        "हिन्दी",
        "עברית",
        "Привет",
        "ΕΛΛΆΣ",
    ],
    *["😀", "👩‍👩‍👧", "🏳️‍🌈", "🇫🇷", "👍🏽", "❤️", "0", "12", "3.14", "٣", "Ⅷ", "1st", "co2", "x1y2z3", "snake_case"],
    *["a", "A", "z", "Dog", "PHOTO", "don't", "O'Neill's", "rock'n'roll", "--", "!!!", "...", "#tag", "@me", "/", "\\"],
]

everything = st.characters(exclude_categories=())  # surrogates too, which st.text leaves out
trap = st.sampled_from(TRAPS)
string = st.one_of(
    st.text(everything, max_size=12),
    st.lists(trap, max_size=8).map("".join),
    st.lists(st.one_of(trap, st.text(everything, max_size=3)), max_size=6).map(" ".join),
    st.text(st.characters(max_codepoint=0x17F), max_size=16),
    st.text(st.characters(max_codepoint=0x7F), max_size=20),
)


@pytest.fixture(scope="module")
def peer() -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def test_generated_strings(peer: Any) -> None:
    compared: set[str] = set()

    @settings(
        max_examples=STRINGS // BATCH * 8 // 5,  # some strings come twice
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(string, min_size=BATCH, max_size=BATCH, unique=True))
    def check(texts: list[str]) -> None:
        compared.update(texts)
        for text in texts:
            assert ours.encode(text) == peer.encode(text), ascii(text)
        assert torch.equal(ours(texts, context_length=12), peer(texts, context_length=12))

    for _ in range(4):  # older versions of hypothesis draw many strings twice
        if len(compared) < STRINGS:
            check()
    assert len(compared) >= STRINGS


@pytest.mark.parametrize("context_length", [77, 4])
def test_traps_alone_and_in_pairs(peer: Any, context_length: int) -> None:
    chosen = TRAPS[:: 1 if context_length == 77 else 9]
    texts = [*TRAPS, *(f"{left}{right}" for left in chosen[::3] for right in chosen[::2])]
    texts += [f"Photo {left} dog" for left in TRAPS]
    assert torch.equal(ours(texts, context_length), peer(texts, context_length))


def test_long_and_empty(peer: Any) -> None:
    texts = ["", " ", "\n\t ", "\u0345", "\0", "a" * 3000, "ab" * 800, "9" * 500, "!?" * 500, "é" * 700, "日" * 300]
    texts += ["dog " * 2000, "dog\n" * 500, "'s" * 200, "&amp;" * 300, "x" * 77, "<start_of_text>" * 80, "😀" * 100]
    for text in texts:
        assert ours.encode(text) == peer.encode(text), ascii(text[:20])
    assert torch.equal(ours(texts), peer(texts))


def test_every_code_point_of_the_scripts_with_case_or_marks(peer: Any) -> None:
    """All but the vast uniform blocks, where neither folding nor cleaning tells one character from the next."""
    points = [*range(0x3100), *range(0xA640, 0xAC00), *range(0xD7B0, 0xE010), *range(0xF900, 0x10000)]
    texts = [f"a{chr(point)}B {chr(point)}'{chr(point)}s" for point in points]
    for start in range(0, len(texts), 1000):
        part = texts[start : start + 1000]
        differing = (ours(part) != peer(part)).any(1).nonzero().flatten().tolist()
        assert [ascii(part[row]) for row in differing] == []


def test_unrepaired_text_is_what_ftfy_leaves() -> None:
    """The texts that cleaning spares ftfy: every neighbourhood that its rules for mojibake can look at."""

    def words(text: str) -> list[str]:
        return html.unescape(html.unescape(ftfy.fix_text(text))).split()

    spared = "–—‘’“”…"
    around = ["", "a", "A", " ", "1", ".", "\n", "z "]
    texts = ["".join(parts) for size in (1, 2, 3) for parts in itertools.product([*spared, "a", "A", " "], repeat=size)]
    texts += [
        left + letter + right
        for letter in [*map(chr, range(0xA0, 0x100)), *spared]
        for left, right in itertools.product(around, repeat=2)
    ]
    for text in texts:
        assert clean(text).split() == words(text), ascii(text)


def test_decode(peer: Any) -> None:
    ids = list(range(0, peer.vocab_size, 7)) + peer.all_special_ids
    assert ours.decode(ids) == peer.decode(ids)
    for index in range(0, peer.vocab_size, 3):
        assert ours.decode([index]) == peer.decode([index])


def test_vocabulary(peer: Any) -> None:
    def spelled(token: str) -> str:
        word = token.removesuffix("</w>")
        return "".join(chr(peer.byte_decoder[letter]) for letter in word) + token[len(word) :]

    theirs = [spelled(token) for token, _ in sorted(peer.encoder.items(), key=lambda item: item[1])]
    assert list(load_vocabulary().tokens) == theirs
    assert ours.vocab_size == peer.vocab_size
    assert ours.all_special_ids == peer.all_special_ids
