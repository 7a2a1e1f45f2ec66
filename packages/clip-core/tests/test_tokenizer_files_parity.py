"""The ids of open_clip's and transformers' tokenizers on the same vocabularies.

They are small and trained here, one for each kind that published models have.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip.tokenizer as peer
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from clip_core.config import HfTokenizerConfig
from clip_core.tokenizer import HfTokenizer, build_tokenizer
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

SPECIALS = "<s> <pad> </s> <unk> [CLS] [SEP] [PAD] <eos> <bos> <|endoftext|> ▁ fra_Latn"
WORDS = "&amp; &lt; ’s “x” â€™ ¨ ½ ﬁ Ａ İ ß Σ 🦓 👩‍👩‍👧 _ snake_case {} don't -- ٣ ไทย a cat"
TRAPS = [*SPECIALS.split(), *WORDS.split()]
TRAPS += ["\ud800", "\0", "\u200b", "\xad", "\u3000", "e\u0301", "  ", "\n"]

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
    pytest.importorskip("transformers", minversion="5.0")  # its class reads a file before
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
