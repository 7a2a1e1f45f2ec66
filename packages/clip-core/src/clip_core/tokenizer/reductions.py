"""Shorter texts for training: dropping tokens until a text fits (CLIPA, Li et al. 2023, https://arxiv.org/abs/2305.07017).

"simple" keeps one stretch at a random place, "random" keeps random tokens in their order, "shuffle" in any order, and
"syntax" keeps nouns first, then adjectives, verbs and the rest, in their order. A text that fits is left alone, but
that "syntax" puts spaces between the words of its tagger. All chance comes from the generator that is passed in, so
that a run can be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np

from clip_core.errors import ConfigError
from clip_core.tokenizer.checks import checked_texts
from clip_core.tokenizer.interface import TokenBatch
from clip_core.tokenizer.rows import RowTokenizer

__all__ = ["Reduction", "Tagger", "reduce_texts"]

Reduction = Literal["simple", "random", "shuffle", "syntax"]

Tagger = Callable[[str], Sequence[tuple[str, str]]]
"""A text -> its words, each with its part of speech in the tags of the Penn Treebank ("NN", "JJS", "VBD")."""

_WANTED = ("NN", "JJ", "VB")  # first letters of nouns, adjectives and verbs, the most wanted first


def reduce_texts(
    tokenizer: RowTokenizer,
    texts: str | Sequence[str],
    reduction: Reduction,
    generator: np.random.Generator,
    *,
    context_length: int | None = None,
    tagger: Tagger | None = None,
) -> TokenBatch:
    """Rows of `tokenizer` in which texts that are too long have lost tokens by `reduction`, and not at their end.

    Args:
        tokenizer: any that clip-core builds.
        texts: a text or a list of B texts.
        reduction: what is kept, see above.
        generator: seeded by the caller; two equal ones give equal rows. "syntax" draws nothing from it.
        context_length: the length of a row; the tokenizer's own by default.
        tagger: of the words for "syntax", English by default (the extra `syntax` and nltk's data).

    Returns:
        tokens int64 (B, context_length), and the lengths of the texts as they came.

    Raises:
        ConfigError: no such reduction, or "syntax" has no tagger.
    """
    if reduction not in get_args(Reduction):
        raise ConfigError(f"reduction is {reduction!r}; allowed: {', '.join(map(repr, get_args(Reduction)))}.")
    texts = checked_texts(texts)
    room = tokenizer.room(context_length)
    bodies = tokenizer.bodies(texts)
    uncut = [len(body) for body in bodies]
    if reduction == "syntax":
        tagged = map(_english if tagger is None else tagger, texts)
        bodies = tokenizer.bodies([_most_wanted(words, room) for words in tagged])
    else:
        bodies = [_kept(body, room, reduction, generator) for body in bodies]
    return tokenizer.fill(bodies, uncut, context_length)


def _kept(body: list[int], room: int, reduction: Reduction, generator: np.random.Generator) -> list[int]:
    if len(body) <= room:
        return body
    if reduction == "simple":
        first = int(generator.integers(len(body) - room + 1))
        return body[first : first + room]
    places = generator.permutation(len(body))[:room]
    return [body[place] for place in (places if reduction == "shuffle" else np.sort(places))]


def _most_wanted(words: Sequence[tuple[str, str]], room: int) -> str:
    """The `room` words of the most wanted kinds, of a kind the first ones, in the order of the text."""

    def rank(tag: str) -> int:
        return next((place for place, kind in enumerate(_WANTED) if tag.startswith(kind)), len(_WANTED))

    places = sorted(range(len(words)), key=lambda place: rank(words[place][1]))[:room]
    return " ".join(words[place][0] for place in sorted(places))


def _english(text: str) -> Sequence[tuple[str, str]]:
    advice = "or pass `tagger`, a function from a text to [(word, tag), ...]."
    try:
        import nltk
    except ImportError as error:
        raise ConfigError(f'The reduction "syntax" needs nltk: pip install "clip-core[syntax]", {advice}') from error
    try:
        words: list[tuple[str, str]] = nltk.pos_tag(nltk.word_tokenize(text))
    except LookupError as error:
        raise ConfigError(
            'The reduction "syntax" needs data that nltk has not got here: run python -m nltk.downloader punkt_tab '
            f"averaged_perceptron_tagger_eng, {advice}"
        ) from error
    return words
