"""The ids of open_clip's and transformers' tokenizers, and of SentencePiece and tiktoken, on the same vocabularies.

They are small and trained here, one for each kind that published models have.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip.tokenizer as peer
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from clip_core.config import HfTokenizerConfig, TiktokenTokenizerConfig
from clip_core.errors import ConfigError, DataError
from clip_core.tokenizer import HfTokenizer, TiktokenTokenizer, build_tokenizer
from clip_core.tokenizer.cleaning import canonicalize, cleaner

pytestmark = pytest.mark.parity

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

SPECIALS = [
    "<s>",
    "<pad>",
    "</s>",
    "<unk>",
    "[CLS]",
    "[SEP]",
    "[PAD]",
    "<eos>",
    "<bos>",
    "<|endoftext|>",
    "▁",
    "fra_Latn",
]
TRAPS = [
    *SPECIALS,
    "&amp;",
    "&lt;",
    "’s",
    "“x”",
    "â€™",
    "\ud800",
    "\0",
    "\u200b",
    "\xad",
    "\u3000",
    "¨",
    "½",
    "ﬁ",
    "Ａ",
]
TRAPS += [
    "İ",
    "ß",
    "Σ",
    "🦓",
    "👩‍👩‍👧",
    "  ",
    "\n",
    "_",
    "snake_case",
    "{}",
    "don't",
    "--",
    "e\u0301",
    "٣",
    "ไทย",
    "a",
    "cat",
]

string = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=12),  # surrogates too
    st.lists(st.one_of(st.sampled_from(TRAPS), st.sampled_from(" ".join(CORPUS).split())), max_size=14).map(" ".join),
    st.lists(st.sampled_from(TRAPS), max_size=6).map("".join),
    st.text(st.characters(max_codepoint=0x17F), max_size=16),
)
batches = st.lists(string, min_size=30, max_size=30)
unhurried = settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def metaspace(backend: Any) -> None:
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    backend.decoder = decoders.Metaspace(prepend_scheme="always")


def unigram(tokens: list[str], unknown: str, ends: list[str]) -> Any:
    backend = Backend(models.Unigram())
    metaspace(backend)
    trainer = trainers.UnigramTrainer(vocab_size=160, special_tokens=tokens, unk_token=unknown, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    return ended(backend, ends)


def ended(backend: Any, ends: list[str]) -> Any:
    names = [name for name in ends if name != "$A"]
    backend.post_processor = processors.TemplateProcessing(
        single=ends, special_tokens=[(name, backend.token_to_id(name)) for name in names]
    )
    return backend


def siglip() -> tuple[Any, dict[str, Any]]:
    backend = unigram(["<pad>", "</s>", "<unk>"], "<unk>", ["$A", "</s>"])
    return backend, {"pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"}


def xlm_roberta() -> tuple[Any, dict[str, Any]]:
    backend = unigram(["<s>", "<pad>", "</s>", "<unk>"], "<unk>", ["<s>", "$A", "</s>"])
    return backend, {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}


def gemma() -> tuple[Any, dict[str, Any]]:
    backend = Backend(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>"]
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=520, special_tokens=tokens + byte_tokens, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    content = json.loads(backend.to_str())
    content["added_tokens"] = content["added_tokens"][: len(tokens)]  # bytes are ordinary tokens
    backend = ended(Backend.from_str(json.dumps(content)), ["$A", "<eos>"])
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    return backend, {**names, "add_bos_token": True, "add_eos_token": False, "padding_side": "right"}


def roberta() -> tuple[Any, dict[str, Any]]:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return backend, {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}


def bert() -> tuple[Any, dict[str, Any]]:
    backend = Backend(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=tokens, show_progress=False)
    )
    names = {f"{token[1:-1].lower()}_token": token for token in tokens}
    return ended(backend, ["[CLS]", "$A", "[SEP]"]), {"tokenizer_class": "BertTokenizer", **names}


def nllb() -> tuple[Any, dict[str, Any]]:
    backend = Backend(models.BPE(unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    tokens = ["<s>", "<pad>", "</s>", "<unk>"]
    backend.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=200, special_tokens=tokens, show_progress=False))
    backend.add_special_tokens(["eng_Latn", "fra_Latn"])
    return ended(backend, ["$A", "</s>", "eng_Latn"]), {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


KINDS: dict[str, tuple[Callable[[], tuple[Any, dict[str, Any]]], dict[str, Any]]] = {
    "siglip": (siglip, {"pad_id": 1, "clean": "canonicalize"}),
    "xlm-roberta": (xlm_roberta, {"pad_id": 1, "clean": "whitespace"}),
    "gemma": (gemma, {"pad_id": 0, "clean": "canonicalize"}),
    "roberta": (roberta, {"pad_id": 1, "clean": "lower"}),
    "bert": (bert, {"pad_id": 0, "clean": "whitespace"}),
    "bert, no separator": (bert, {"pad_id": 0, "clean": "whitespace", "drop_separator": True}),
}
LENGTH = 12


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with a trained tokenizer of a kind, as transformers would have saved it."""
    made: dict[str, Path] = {}
    makers = {"nllb": nllb, **{kind: maker for kind, (maker, _) in KINDS.items()}}

    def folder(kind: str) -> Path:
        if kind not in made:
            backend, names = makers[kind]()
            path = tmp_path_factory.mktemp("vocabulary")
            backend.save(str(path / "tokenizer.json"))
            names = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
            (path / "tokenizer_config.json").write_text(json.dumps(names))
            made[kind] = path
        return made[kind]

    return folder


def config(**fields: Any) -> HfTokenizerConfig:
    return HfTokenizerConfig(context_length=LENGTH, source="org/name", **fields)


def same_rows(ours: Any, theirs: Any, texts: list[str], **call: Any) -> None:
    rows, expected = ours(texts, **call), theirs(texts, **call)
    differing = (rows != expected).any(1).nonzero().flatten().tolist()
    assert [(ascii(texts[row]), rows[row].tolist(), expected[row].tolist()) for row in differing] == []
    assert rows.dtype == expected.dtype
    assert int(rows.max()) < ours.vocab_size


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_those_of_open_clip(folders: Callable[[str], Path], kind: str) -> None:
    fields = KINDS[kind][1]
    ours = build_tokenizer(config(**fields), folders(kind))
    theirs = peer.HFTokenizer(
        str(folders(kind)), LENGTH, clean=fields["clean"], strip_sep_token=fields.get("drop_separator", False)
    )
    same_rows(ours, theirs, [*CORPUS[:8], *TRAPS, "", " ".join(CORPUS)])
    same_rows(ours, theirs, CORPUS[:8], context_length=5)

    @unhurried
    @given(batches)
    def check(texts: list[str]) -> None:
        same_rows(ours, theirs, texts)

    check()


@pytest.mark.parametrize("kind", ["siglip", "xlm-roberta", "gemma", "roberta", "bert"])
def test_lengths_and_decoding_are_those_of_transformers(folders: Callable[[str], Path], kind: str) -> None:
    from transformers import AutoTokenizer

    ours = build_tokenizer(config(**{**KINDS[kind][1], "clean": "none"}), folders(kind))
    theirs = AutoTokenizer.from_pretrained(str(folders(kind)))
    texts = [*CORPUS[:8], ""]
    assert ours.tokenize(texts).lengths.tolist() == [len(theirs(text).input_ids) for text in texts]
    for row in ours(texts):
        assert ours.decode(row) == theirs.decode(row.tolist())
        assert ours.decode(row, skip_special_tokens=True) == theirs.decode(row.tolist(), skip_special_tokens=True)


def test_rows_are_those_of_open_clips_siglip_tokenizer(folders: Callable[[str], Path]) -> None:
    from transformers import PreTrainedTokenizerFast

    theirs = object.__new__(peer.SigLipTokenizer)  # its constructor fetches a vocabulary
    theirs.context_length = LENGTH
    theirs.tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folders("siglip")))
    ours = build_tokenizer(config(**KINDS["siglip"][1]), folders("siglip"))
    same_rows(ours, theirs, [*CORPUS[:8], *TRAPS, "", " ".join(CORPUS)])


@pytest.mark.parametrize("language", ["eng_Latn", "fra_Latn"])
def test_languages_are_those_of_transformers(folders: Callable[[str], Path], language: str) -> None:
    """transformers' class makes NLLB's pieces itself; ours come from the file, so only the frame is compared."""
    from transformers import NllbTokenizer

    path = folders("nllb")
    content = json.loads((path / "tokenizer.json").read_text())["model"]
    merges = [tuple(pair) for pair in content["merges"]]
    theirs = object.__new__(peer.HFTokenizer)
    theirs.tokenizer_mode, theirs.clean_fn, theirs.strip_sep_token = "", peer.get_clean_fn("whitespace"), False
    size = len(content["vocab"])
    theirs.tokenizer = NllbTokenizer({**content["vocab"], "eng_Latn": size, "fra_Latn": size + 1}, merges)
    theirs.tokenizer.src_lang = language  # open_clip's `set_language` is undone by transformers 5 at the next call
    theirs.context_length = LENGTH
    ours = build_tokenizer(config(pad_id=1, clean="whitespace", language="eng_Latn"), path)
    assert isinstance(ours, HfTokenizer)
    same_rows(ours.with_language(language), theirs, [*CORPUS[:8], "", " ".join(CORPUS)])


def test_vocab_txt_is_berts(folders: Callable[[str], Path], tmp_path: Path) -> None:
    vocabulary = json.loads((folders("bert") / "tokenizer.json").read_text())["model"]["vocab"]
    (tmp_path / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)) + "\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    ours = build_tokenizer(config(pad_id=0, clean="whitespace"), tmp_path)
    theirs = peer.HFTokenizer(str(tmp_path), LENGTH)

    @unhurried
    @given(batches)
    def check(texts: list[str]) -> None:
        same_rows(ours, theirs, texts)

    check()


@given(string)
@settings(max_examples=1500, deadline=None, database=None)
def test_cleaning(text: str) -> None:
    for kind in ("whitespace", "lower", "canonicalize"):
        assert cleaner(kind)(text) == peer.get_clean_fn(kind)(text)  # type: ignore[arg-type]
    assert canonicalize(text) == peer.canonicalize_text(text)
    kept = peer.canonicalize_text(text, keep_punctuation_exact_string="{}")
    assert canonicalize(text, keep="{}") == kept


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
