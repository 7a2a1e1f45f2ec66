"""Tokenizers that are read from files: rows, cutting, what is missing or wrong, and files kept in a bundle.

These cover clip_core.tokenizer.hf, clip_core.tokenizer.missing, clip_core.tokenizer.rows and
clip_core.tokenizer.checks; what the ids are is compared with the peers in test_tokenizer_files_parity.py.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors

import clip_core
from clip_core.config import ClipConfig, ClipTokenizerConfig, HfTokenizerConfig
from clip_core.errors import ConfigError, DataError, TokenTooLong
from clip_core.tokenizer import HfTokenizer, MissingTokenizer, build_tokenizer, find_tokenizer
from clip_core.tokenizer.checks import shortened

WORDS = ["a", "photo", "of", "cat", "dog", "##s", "red"]
LINES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
CLS, SEP, A, CAT, PLURAL = 2, 3, 5, 8, 10


def config(**fields: Any) -> HfTokenizerConfig:
    values: dict[str, Any] = {"context_length": 8, "source": "org/name", "clean": "lower", "pad_id": 0, **fields}
    return HfTokenizerConfig(**values)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """BERT's kind of vocabulary in its oldest form."""
    (tmp_path / "vocab").mkdir()
    (tmp_path / "vocab" / "vocab.txt").write_text("\n".join(LINES) + "\n")
    return tmp_path / "vocab"


def words_json(path: Path, **changes: Any) -> None:
    """A tokenizer.json in which each word is a token, one more is a language, and </s> ends a text."""
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "a", "cat", "eng_Latn", "fra_Latn"]
    backend = Backend(models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "eng_Latn", "fra_Latn"])
    backend.post_processor = processors.TemplateProcessing(
        single=["$A", "</s>", "eng_Latn"], special_tokens=[("</s>", 2), ("eng_Latn", 6)]
    )
    backend.enable_padding(length=99, pad_id=3)
    backend.enable_truncation(4)
    content = {**json.loads(backend.to_str()), **changes}
    path.write_text(json.dumps(content))


def test_a_row_is_start_ids_end_padding(folder: Path) -> None:
    tokenizer = build_tokenizer(config(), folder)
    batch = tokenizer.tokenize(["A  cats\n", "", "a a a a a a", "a a a a a a a zzz"])
    assert batch.tokens.tolist() == [
        [CLS, A, CAT, PLURAL, SEP, 0, 0, 0],
        [CLS, SEP, 0, 0, 0, 0, 0, 0],
        [CLS, A, A, A, A, A, A, SEP],
        [CLS, A, A, A, A, A, A, SEP],
    ]
    assert batch.tokens.dtype == torch.int64
    assert batch.lengths.tolist() == [5, 2, 8, 10]
    assert batch.truncated == 1
    assert tokenizer("a cat", context_length=4).tolist() == [[CLS, A, CAT, SEP]]
    assert tokenizer([]).shape == (0, 8)
    assert tokenizer.vocab_size == len(LINES)


def test_refuses_to_cut_and_bad_input(folder: Path) -> None:
    tokenizer = build_tokenizer(config(), folder)
    with pytest.raises(
        TokenTooLong, match=r"Text 1, 'cat cat cat cat cat cat cat', has 9 tokens.* 8\. .*truncate=True"
    ):
        tokenizer(["a", "cat " * 6 + "cat"], truncate=False)
    with pytest.raises(ConfigError, match=r"texts\[1\] is 3"):
        tokenizer(["a", 3])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="context_length must be an integer of at least 3"):
        tokenizer("a", context_length=2)
    assert len(shortened("x" * 1000)) < 100


def test_drop_separator_pads_where_a_text_would_end(folder: Path) -> None:
    tokenizer = build_tokenizer(config(drop_separator=True), folder)
    batch = tokenizer.tokenize(["a cat", "a " * 20, "a [SEP] cat"])
    assert batch.tokens[0].tolist() == [CLS, A, CAT, 0, 0, 0, 0, 0]
    assert batch.tokens[1].tolist() == [CLS, A, A, A, A, A, A, 0]
    assert not (batch.tokens == SEP).any()
    assert batch.lengths.tolist()[:2] == [4, 22]


def test_decode(folder: Path) -> None:
    tokenizer = build_tokenizer(config(), folder)
    row = tokenizer("a red cats")[0]
    assert tokenizer.decode(row, skip_special_tokens=True) == "a red cats"
    assert tokenizer.decode(row.tolist()) == "[CLS] a red cats [SEP] [PAD] [PAD]"
    with pytest.raises(ConfigError, match=f"token id {len(LINES)} is not in the vocabulary, which has ids 0 to"):
        tokenizer.decode([len(LINES)])
    with pytest.raises(ConfigError, match="one row of integer ids"):
        tokenizer.decode(tokenizer(["a", "cat"]))


def test_bert_settings_beside_vocab_txt(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert build_tokenizer(config(clean="none"), folder)("a CAT").tolist() == [[CLS, A, 1, SEP, 0, 0, 0, 0]]


def test_what_a_tokenizer_json_says_of_length_does_not_count(tmp_path: Path) -> None:
    words_json(tmp_path / "tokenizer.json")
    tokenizer = build_tokenizer(config(pad_id=1), tmp_path)
    assert tokenizer("a cat a cat a").tolist() == [[4, 5, 4, 5, 4, 2, 6, 1]]


def test_a_language_stands_first(tmp_path: Path) -> None:
    words_json(tmp_path / "tokenizer.json")
    tokenizer = build_tokenizer(config(pad_id=1, language="eng_Latn"), tmp_path)
    assert isinstance(tokenizer, HfTokenizer)
    assert tokenizer("a cat").tolist() == [[6, 4, 5, 2, 1, 1, 1, 1]]
    french = tokenizer.with_language("fra_Latn")
    assert french("a cat").tolist() == [[7, 4, 5, 2, 1, 1, 1, 1]]
    assert french.config.language == "fra_Latn"
    assert tokenizer.config.language == "eng_Latn"
    assert french.decode(french("a cat")[0], skip_special_tokens=True) == "a cat"
    with pytest.raises(ConfigError, match=r"no token for the language 'eng_Lat'; did you mean eng_Latn"):
        tokenizer.with_language("eng_Lat")


def test_no_post_processor_adds_nothing(tmp_path: Path) -> None:
    words_json(tmp_path / "tokenizer.json", post_processor=None)
    assert build_tokenizer(config(pad_id=1), tmp_path)("a").tolist() == [[4, 1, 1, 1, 1, 1, 1, 1]]
    with pytest.raises(ConfigError, match="drop_separator has nothing to drop"):
        build_tokenizer(config(pad_id=1, drop_separator=True), tmp_path)


def test_a_context_that_the_ends_fill(tmp_path: Path) -> None:
    ends = processors.TemplateProcessing(
        single=["<s>", "$A", "</s>", "eng_Latn"], special_tokens=[("<s>", 0), ("</s>", 2), ("eng_Latn", 6)]
    )
    words_json(tmp_path / "tokenizer.json", post_processor=json.loads(ends.__getstate__()))
    with pytest.raises(ConfigError, match="context_length 3 has no room: this tokenizer adds 3 ids"):
        build_tokenizer(config(pad_id=1), tmp_path)("a", context_length=3)


@pytest.mark.parametrize(
    ("fields", "settings", "named"),
    [
        ({"pad_id": 50}, None, "ids 0 to 7, but rows are to be padded with 50: it is not the vocabulary of org/name"),
        ({"pad_id": 0}, {"pad_token": "<pad>"}, "pads with id 1, but the model was trained with 0"),
        ({"pad_id": 0}, {"pad_token": {"content": "<pad>"}}, "pads with id 1, but the model was trained with 0"),
    ],
)
def test_a_vocabulary_of_another_model(tmp_path: Path, fields: Any, settings: Any, named: str) -> None:
    words_json(tmp_path / "tokenizer.json")
    if settings:
        (tmp_path / "special_tokens_map.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=named):
        build_tokenizer(config(**fields), tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("tokenizer.json", "{", "tokenizer.json cannot be read"),
        ("vocab.txt", "a\nb\n", r"vocab.txt is not BERT's vocabulary: it has no line \[UNK\]"),
        ("tokenizer.model", "zzz", "tokenizer.model is no SentencePiece model, or a damaged one"),
        ("spiece.model", "", "spiece.model is no SentencePiece model, or a damaged one: it has 0 pieces"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, content: str, named: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=named):
        build_tokenizer(config(), tmp_path)


@pytest.mark.parametrize(("content", "named"), [("{", "not valid JSON"), ("[]", "holds list, not an object")])
def test_damaged_settings(folder: Path, content: str, named: str) -> None:
    (folder / "tokenizer_config.json").write_text(content)
    with pytest.raises(DataError, match=f"tokenizer_config.json .*{named}"):
        build_tokenizer(config(), folder)


def test_an_unknown_way_of_ending_texts(tmp_path: Path) -> None:
    ends = processors.Sequence([processors.ByteLevel(), processors.BertProcessing(("</s>", 2), ("<s>", 0))])
    words_json(tmp_path / "tokenizer.json", post_processor=json.loads(ends.__getstate__()))
    assert build_tokenizer(config(pad_id=1), tmp_path)("a").tolist() == [[0, 4, 2, 1, 1, 1, 1, 1]]
    from clip_core.tokenizer.hf import _ends

    with pytest.raises(DataError, match="ends texts with a 'Novel' step"):
        _ends({"type": "Novel"}, tmp_path)


def test_a_missing_vocabulary_names_file_and_source(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"tokenizer\.json of the Hub repository org/name, and none is at hand: clip-hub"
    ):
        build_tokenizer(config())
    with pytest.raises(ConfigError, match=f"and {tmp_path} has none: .*tokenizer=FOLDER"):
        build_tokenizer(config(), tmp_path)
    with pytest.raises(ConfigError, match="and there is no folder"):
        build_tokenizer(config(), tmp_path / "no")
    (tmp_path / "sentencepiece.bpe.model").touch()
    with pytest.raises(ConfigError, match=r"only sentencepiece\.bpe\.model could be one"):
        build_tokenizer(config(), tmp_path)
    missing = find_tokenizer(config(), tmp_path)
    assert isinstance(missing, MissingTokenizer)
    assert missing.context_length == 8
    assert repr(missing) == "MissingTokenizer(context_length=8)"
    for use in (
        lambda: missing("a"),
        lambda: missing.tokenize("a"),
        lambda: missing.decode([1]),
        lambda: missing.vocab_size,
    ):
        with pytest.raises(ConfigError, match="org/name"):
            use()


def test_a_folder_for_clips_own_tokenizer_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="CLIP's own, .*leave out the folder"):
        build_tokenizer(ClipTokenizerConfig(context_length=8), folder)


def test_pickles_as_its_folder(folder: Path) -> None:
    tokenizer = build_tokenizer(config(), folder)
    assert len(pickle.dumps(tokenizer)) < 1000
    for other in (pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):
        assert torch.equal(other("a photo of a cat"), tokenizer("a photo of a cat"))


def test_many_texts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = build_tokenizer(config(), folder)
    texts = ["a " * (count % 9) + "cat" for count in range(100)]
    expected = torch.cat([tokenizer(text) for text in texts])
    monkeypatch.setattr("clip_core.tokenizer.backend._BLOCK", 7)
    assert torch.equal(tokenizer(texts), expected)


@pytest.fixture
def model_config() -> ClipConfig:
    """`tiny` with a tokenizer of its own."""
    base = clip_core.get_config("tiny")
    return dataclasses.replace(base, tokenizer=config(context_length=base.text.context_length))


def untrained(model_config: ClipConfig, folder: Path | None) -> clip_core.Bundle:
    from clip_core.building import build

    return clip_core.Bundle.of(build(model_config, None), folder)


def test_a_bundle_keeps_the_files_bit_for_bit(tmp_path: Path, folder: Path, model_config: ClipConfig) -> None:
    (folder / "tokenizer_config.json").write_text('{"do_lower_case":   true}\n')
    (folder / "readme.md").write_text("not of the tokenizer")
    bundle = untrained(model_config, folder)
    saved = clip_core.save(bundle, tmp_path / "bundle")
    names = {"clip_config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"}
    assert {path.name for path in saved.iterdir()} == names
    for name in ("vocab.txt", "tokenizer_config.json"):
        assert (saved / name).read_bytes() == (folder / name).read_bytes()
    loaded = clip_core.load(saved)
    assert torch.equal(loaded.tokenizer(["a red cat", "dogs"]), bundle.tokenizer(["a red cat", "dogs"]))
    # Over itself: the files are read before the folder is replaced.
    clip_core.save(loaded, saved, overwrite=True)
    assert {path.name for path in saved.iterdir()} == names
    assert (saved / "vocab.txt").read_bytes() == (folder / "vocab.txt").read_bytes()


def test_files_that_are_gone_stop_saving(tmp_path: Path, folder: Path, model_config: ClipConfig) -> None:
    bundle = untrained(model_config, folder)
    (folder / "vocab.txt").unlink()
    with pytest.raises(ConfigError, match=r"read from .*vocab\.txt, which is no longer there"):
        clip_core.save(bundle, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_folder_with_nothing_but_a_vocabulary_is_never_replaced(folder: Path, model_config: ClipConfig) -> None:
    with pytest.raises(ConfigError, match="is not replaced"):
        clip_core.save(untrained(model_config, folder), folder, overwrite=True)
    assert (folder / "vocab.txt").is_file()


def test_images_need_no_vocabulary(tmp_path: Path, model_config: ClipConfig) -> None:
    bundle = untrained(model_config, None)
    size = bundle.model.visual.image_size
    assert bundle.model.encode_image(torch.zeros(1, 3, *size)).shape == (1, model_config.embed_dim)
    loaded = clip_core.load(clip_core.save(bundle, tmp_path / "bundle"))
    with pytest.raises(ConfigError, match="org/name"):
        loaded.tokenizer("a cat")


def test_by_name(tmp_path: Path, folder: Path, model_config: ClipConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clip_core.creation.get_config", lambda name: model_config)
    with pytest.raises(ConfigError, match="org/name"):
        clip_core.get_tokenizer("any")
    assert clip_core.get_tokenizer("any", folder=folder)("a").shape == (1, model_config.text.context_length)
    assert clip_core.get_tokenizer("any", 9, folder=folder)("a").shape == (1, 9)
    bundle = clip_core.create("any", tokenizer=folder)
    with pytest.raises(ConfigError, match="has none"):
        clip_core.create("any", tokenizer=tmp_path)
    assert isinstance(clip_core.create("any").tokenizer, MissingTokenizer)
    saved = clip_core.save(bundle, tmp_path / "bundle")
    again = clip_core.create("any", saved)
    assert torch.equal(again.tokenizer("a red cat"), bundle.tokenizer("a red cat"))
