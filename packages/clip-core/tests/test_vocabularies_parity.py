"""The ids of SentencePiece and tiktoken on small vocabularies of theirs, trained here.

These cover clip_core.tokenizer.sentencepiece and clip_core.tokenizer.tiktoken.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_core.config import HfTokenizerConfig, TiktokenTokenizerConfig
from clip_core.errors import ConfigError, DataError
from clip_core.tokenizer import HfTokenizer, TiktokenTokenizer, build_tokenizer
from clip_core.tokenizer.cleaning import cleaner

pytestmark = pytest.mark.parity

LENGTH = 12

CORPUS = [
    "A photo of a cat, sleeping on the couch.",
    "Two dogs play in the snow!",
    "ein Foto von einer Straße in Zürich",
    "une photo d'un chat noir à l'été",
    "日本語 の 写真",
    "Привет, мир",
    "naïve café & jalapeño",
    "The quick brown fox jumps over 12 lazy dogs; isn't it 3.14?",
] * 8

WORDS = "<s> </s> <eos> <extra> <|endoftext|> ▁ ¨ ½ ﬁ Ａ İ ß Σ 🦓 👩‍👩‍👧 _ don't -- ٣ ไทย a cat"
TRAPS = [*WORDS.split(), "\ud800", "\0", "\u200b", "\xad", "\u3000", "e\u0301", "  ", "\n"]

string = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=12),  # surrogates too
    st.lists(st.one_of(st.sampled_from(TRAPS), st.sampled_from(" ".join(CORPUS).split())), max_size=14).map(" ".join),
    st.lists(st.sampled_from(TRAPS), max_size=6).map("".join),
    st.text(st.characters(max_codepoint=0x17F), max_size=16),
)
batches = st.lists(string, min_size=30, max_size=30)
unhurried = settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def config(**fields: Any) -> HfTokenizerConfig:
    return HfTokenizerConfig(context_length=LENGTH, source="org/name", **fields)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with nothing but a SentencePiece model of a kind, with the settings of T5 or of Gemma."""
    import sentencepiece

    made: dict[str, Path] = {}
    options: dict[str, dict[str, Any]] = {
        "unigram": {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "user_defined_symbols": ["<extra>"]},
        "bpe": {
            "pad_id": 0,
            "eos_id": 1,
            "bos_id": 2,
            "unk_id": 3,
            "byte_fallback": True,
            "split_digits": True,
            "add_dummy_prefix": False,
            "normalization_rule_name": "identity",
            "remove_extra_whitespaces": False,
        },
        "fairseq": {"model_type": "bpe"},
        "word": {},
    }

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("pieces")
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(CORPUS),
                model_prefix=str(made[kind] / "spiece"),
                vocab_size=400,
                hard_vocab_limit=False,
                minloglevel=2,
                **{"model_type": kind, **options[kind]},
            )
        return made[kind]

    return folder


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_a_sentencepiece_model_gives_its_librarys_ids(pieces: Callable[[str], Path], kind: str) -> None:
    import sentencepiece

    theirs = sentencepiece.SentencePieceProcessor(model_file=str(pieces(kind) / "spiece.model"))
    ours = build_tokenizer(config(pad_id=0, clean="canonicalize"), pieces(kind))
    assert isinstance(ours, HfTokenizer)
    assert ours.vocab_size == theirs.vocab_size()
    clean = cleaner("canonicalize")

    @unhurried
    @given(batches)
    def check(texts: list[str]) -> None:
        found = ours.bodies(texts)
        for text, ids in zip(texts, found, strict=True):
            assert ids == theirs.encode(clean(text)), ascii(text)

    check()
    row = ours("a cat")[0].tolist()
    assert row == [*theirs.encode("a cat"), theirs.eos_id()] + [0] * (LENGTH - len(theirs.encode("a cat")) - 1)
    assert ours.decode(row, skip_special_tokens=True) == "a cat"


@pytest.mark.parametrize(
    ("kind", "named"), [("word", "of kind word; allowed: unigram, bpe"), ("fairseq", "as the vocabularies of XLM-R")]
)
def test_other_sentencepiece_models_are_refused(pieces: Callable[[str], Path], kind: str, named: str) -> None:
    with pytest.raises(ConfigError, match=f"{named}.*tokenizer.json"):
        build_tokenizer(config(pad_id=0, clean="none"), pieces(kind))


R50K = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[bytes, int]]:
    """A rank file in tiktoken's format, trained as tiktoken's own lesson does: the commonest pair, again and again."""
    from tiktoken._educational import bpe_train

    trained = bpe_train(" ".join(CORPUS[:8]), 400, R50K, visualise=None)
    folder = tmp_path_factory.mktemp("ranks")
    lines = [f"{base64.b64encode(token).decode()} {rank}" for token, rank in trained.items()]
    (folder / "r50k_base.tiktoken").write_text("\n".join(lines) + "\n")
    return folder, trained


TIKTOKEN = TiktokenTokenizerConfig(
    context_length=LENGTH, name="r50k_base", clean="none", bos_id=402, eos_id=400, pad_id=401
)


def test_a_rank_file_gives_tiktokens_ids(ranks: tuple[Path, dict[bytes, int]]) -> None:
    import tiktoken

    theirs = tiktoken.Encoding("small", pat_str=R50K, mergeable_ranks=ranks[1], special_tokens={"<|endoftext|>": 400})
    ours = build_tokenizer(TIKTOKEN, ranks[0])
    assert isinstance(ours, TiktokenTokenizer)

    @unhurried
    @given(batches)
    def check(texts: list[str]) -> None:
        for text, ids in zip(texts, ours.bodies(texts), strict=True):
            assert ids == theirs.encode_ordinary(text), ascii(text)
            assert ours.decode(ids) == theirs.decode(ids)

    check()
    body = theirs.encode_ordinary("a cat")
    batch = ours.tokenize(["a cat", " ".join(CORPUS[:8])])
    # As open_clip's `TikTokenTokenizer`: start, text, end, padding; a text that is cut keeps its end.
    assert batch.tokens[0].tolist() == [402, *body, 400] + [401] * (LENGTH - len(body) - 2)
    assert batch.tokens[1].tolist() == [402, *theirs.encode_ordinary(" ".join(CORPUS[:8]))[: LENGTH - 2], 400]
    assert batch.lengths.tolist() == [len(body) + 2, len(theirs.encode_ordinary(" ".join(CORPUS[:8]))) + 2]
    assert ours.vocab_size == 403
    assert ours.decode(batch.tokens[0]) == "a cat"


def test_cleaning_before_a_rank_file(ranks: tuple[Path, dict[bytes, int]]) -> None:
    clean = build_tokenizer(dataclasses.replace(TIKTOKEN, clean="canonicalize"), ranks[0])
    assert torch.equal(clean("A  Cat!"), build_tokenizer(TIKTOKEN, ranks[0])("a cat"))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"name": "cl100k_base"}, "'cl100k_base' is not supported; allowed: r50k_base"),
        ({"eos_id": 399}, "are not three ids behind them"),
        ({"pad_id": 400}, "are not three ids behind them"),
    ],
)
def test_rank_files_that_do_not_fit(ranks: tuple[Path, dict[bytes, int]], fields: Any, named: str) -> None:
    (ranks[0] / "cl100k_base.tiktoken").touch()
    with pytest.raises(ConfigError, match=named):
        build_tokenizer(dataclasses.replace(TIKTOKEN, **fields), ranks[0])


@pytest.mark.parametrize(
    ("content", "named"), [("zzz", "damaged"), ("YQ== 1\n", "ids are missing"), ("", "single bytes")]
)
def test_damaged_rank_files(tmp_path: Path, content: str, named: str) -> None:
    (tmp_path / "r50k_base.tiktoken").write_text(content)
    with pytest.raises(DataError, match=f"no rank file of tiktoken.*{named}"):
        build_tokenizer(TIKTOKEN, tmp_path)


def test_a_missing_rank_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"r50k_base\.tiktoken of tiktoken's encoding r50k_base, and .* has none"):
        build_tokenizer(TIKTOKEN, tmp_path)
