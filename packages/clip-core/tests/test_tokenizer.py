"""The tokenizer by itself: shapes, cutting, bad input, sharing, and the packaged vocabulary."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import threading
import zlib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from clip_core.errors import ConfigError, DataError, TokenTooLong
from clip_core.tokenizer import ClipTokenizer, bpe
from clip_core.tokenizer.vocabulary import load_vocabulary, unpack

CAT = [320, 1125, 539, 320, 2368]  # "a photo of a cat", as OpenAI's tokenizer has it
WORDS = ["a", "photo", "of", "the", "zebra's", "naïve", "café", "x1y2", "--", "…", "日本", "🦓", "&amp;", "Straße"]


@pytest.fixture
def tokenizer() -> ClipTokenizer:
    return ClipTokenizer()


def texts(seed: int, count: int) -> list[str]:
    """Random phrases of the words above, some with words that nobody has seen."""
    rng = np.random.default_rng(seed)
    return [" ".join([*rng.choice(WORDS, 8), f"w{rng.integers(10**6)}x"]) for _ in range(count)]


def test_a_row_is_start_ids_end_zeros(tokenizer: ClipTokenizer) -> None:
    tokens = tokenizer(["a photo of a cat", ""])
    assert tokens.dtype == torch.int64
    assert tokens.shape == (2, 77)
    assert tokens[0].tolist() == [49406, *CAT, 49407] + [0] * 70
    assert tokens[1].tolist() == [49406, 49407] + [0] * 75
    assert torch.equal(tokenizer("a photo of a cat"), tokens[:1])
    assert tokenizer.encode("a photo of a cat") == CAT


def test_attributes(tokenizer: ClipTokenizer) -> None:
    assert tokenizer.context_length == 77
    assert tokenizer.vocab_size == 49408
    assert tokenizer.all_special_ids == [tokenizer.sot_token_id, tokenizer.eot_token_id] == [49406, 49407]
    assert repr(ClipTokenizer(32)) == "ClipTokenizer(context_length=32)"


def test_a_long_text_is_cut_and_counted(tokenizer: ClipTokenizer) -> None:
    fits, long, longer = "cat " * 6, "cat " * 7, "cat " * 5000
    batch = tokenizer.tokenize([fits, long, longer, ""], context_length=8)
    assert batch.tokens[:3].tolist() == [[49406, *[2368] * 6, 49407]] * 3
    assert batch.lengths.tolist() == [8, 9, 5002, 2]
    assert batch.truncated == 2
    assert tokenizer(longer, context_length=3).tolist() == [[49406, 2368, 49407]]
    assert ClipTokenizer(context_length=8).tokenize([longer]).truncated == 1


def test_more_texts_than_one_step_holds(tokenizer: ClipTokenizer) -> None:
    many = texts(0, 2 * 1024 + 3)
    batch = tokenizer.tokenize(many, context_length=16)
    assert torch.equal(batch.tokens, torch.cat([tokenizer(text, context_length=16) for text in many]))
    assert batch.lengths.tolist() == [len(tokenizer.encode(text)) + 2 for text in many]


def test_refusing_to_truncate_names_text_count_and_context(tokenizer: ClipTokenizer) -> None:
    with pytest.raises(
        TokenTooLong, match=r"Text 1, 'zebra zebra .*\.\.\..*', has 102 tokens.* 77\. .*truncate=True"
    ) as info:
        tokenizer(["fine", "zebra " * 100], truncate=False)
    assert len(str(info.value)) < 300
    assert torch.equal(tokenizer("fine", truncate=False), tokenizer("fine"))
    assert tokenizer([], truncate=False).shape == (0, 77)


@pytest.mark.parametrize("kind", [list, tuple])
def test_no_texts(tokenizer: ClipTokenizer, kind: type) -> None:
    tokens = tokenizer(kind(), context_length=5)
    assert tokens.shape == (0, 5)
    assert tokens.dtype == torch.int64
    assert tokenizer.tokenize(kind()).truncated == 0


def test_strings_of_numpy(tokenizer: ClipTokenizer) -> None:
    assert torch.equal(tokenizer(list(np.array(["a cat", "Dogs"]))), tokenizer(["a cat", "Dogs"]))


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (b"a cat", r"b'a cat' \(bytes\)"),
        (None, "None"),
        (7, "7"),
        ({"a": "b"}, "dict"),
        (iter(["a"]), "list"),
        (["a", None], r"texts\[1\] is None"),
        (["a", b"b"], r"texts\[1\] is b'b'"),
        (["a", 3], r"texts\[1\] is 3"),
        ([["a"], ["b"]], r"texts\[0\] is \['a'\]"),
    ],
)
def test_texts_that_are_no_strings(tokenizer: ClipTokenizer, bad: object, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        tokenizer(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [2, 0, -1, 77.0, "77", True])
def test_context_lengths_that_hold_no_text(tokenizer: ClipTokenizer, length: object) -> None:
    with pytest.raises(ConfigError, match=f"at least 3 .* not {length!r}"):
        ClipTokenizer(length)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"at least 3 .* not {length!r}"):
        tokenizer("a cat", context_length=length)  # type: ignore[arg-type]


def test_encode_takes_one_string(tokenizer: ClipTokenizer) -> None:
    with pytest.raises(ConfigError, match=r"\['a'\]"):
        tokenizer.encode(["a"])  # type: ignore[arg-type]


def test_decode(tokenizer: ClipTokenizer) -> None:
    row = tokenizer("A  PHOTO of a Café!", context_length=10)[0]
    assert tokenizer.decode(row, skip_special_tokens=True) == "a photo of a café ! "
    assert tokenizer.decode(row) == "<start_of_text>a photo of a café ! <end_of_text>!!"
    assert tokenizer.decode(row.tolist()) == tokenizer.decode(row.numpy()) == tokenizer.decode(row)
    assert tokenizer.decode(iter(CAT), skip_special_tokens=True) == "a photo of a cat "
    assert tokenizer.decode([]) == ""
    for text in texts(1, 50):
        ids = tokenizer.encode(text)
        assert tokenizer.encode(tokenizer.decode(ids)) == ids


@pytest.mark.parametrize(
    ("ids", "named"), [([49408], "49408"), ([-1], "-1"), ([[1, 2]], r"\[\[1, 2\]\]"), ([1.5], "1.5"), (3, "3")]
)
def test_decode_refuses(tokenizer: ClipTokenizer, ids: object, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        tokenizer.decode(ids)  # type: ignore[arg-type]


def test_the_cache_is_bounded_and_does_not_change_ids(
    tokenizer: ClipTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [*texts(2, 200), "y" * 1000]
    expected = tokenizer(many)
    monkeypatch.setattr(bpe, "_CACHE_SIZE", 5)
    small = ClipTokenizer()
    small._chunks = bpe._Chunks()
    small._look_up = small._chunks.__getitem__
    assert torch.equal(small(many), expected)
    assert 0 < len(small._chunks) <= 5
    assert "y" * 1000 not in small._chunks


def test_threads_share_a_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe, "_CACHE_SIZE", 20)  # so that the cache is emptied under the threads' feet
    monkeypatch.setattr(bpe, "_chunks", bpe._Chunks)
    shared = ClipTokenizer()
    work = [texts(seed, 300) for seed in range(6)]
    results: dict[int, torch.Tensor] = {}
    threads = [
        threading.Thread(target=lambda index=index, part=part: results.update({index: shared(part)}))
        for index, part in enumerate(work)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, part in enumerate(work):
        assert torch.equal(results[index], torch.cat([shared(text) for text in part]))


def test_pickles_small(tokenizer: ClipTokenizer) -> None:
    short = ClipTokenizer(context_length=9)
    data = pickle.dumps(short)
    assert len(data) < 200
    for other in (pickle.loads(data), copy.deepcopy(short)):
        assert torch.equal(other("a photo of a cat"), short("a photo of a cat"))


@pytest.mark.parametrize("method", ["fork", "spawn"])
# Python 3.12 and later warn of any fork in a process that has threads, as torch's has.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_works_in_data_loader_workers(tokenizer: ClipTokenizer, method: str) -> None:
    if method not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"this platform cannot {method}")
    phrases = texts(3, 40)
    expected = tokenizer(phrases)
    loader = DataLoader(phrases, batch_size=20, collate_fn=tokenizer, num_workers=1, multiprocessing_context=method)  # type: ignore[arg-type, var-annotated]
    assert torch.equal(torch.cat(list(loader)), expected)


def test_import_loads_nothing() -> None:
    code = "import sys, clip_core.tokenizer; print(sorted({'ftfy', 'regex', 'tokenizers'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_packaged_vocabulary_is_verified() -> None:
    folder = resources.files("clip_core.tokenizer")
    packed = (folder / "vocabulary.bin").read_bytes()
    record = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
    payload = unpack(packed, record["sha256"])
    assert len(payload) == 4 * 48_894
    with pytest.raises(DataError, match="damaged"):
        unpack(packed[:-100], record["sha256"])
    with pytest.raises(DataError, match="sha256"):
        unpack(zlib.compress(payload[:-1] + b"\0"), record["sha256"])


def test_vocabulary_is_the_one_that_the_tool_builds() -> None:
    tool = Path(__file__).parents[3] / "tools" / "build_vocabulary.py"
    if not tool.exists():
        pytest.skip("tools/ is not part of the source distribution")
    ran = subprocess.run([sys.executable, str(tool), "--check"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_token_is_spelled_once() -> None:
    tokens = load_vocabulary().tokens
    assert len(tokens) == len(set(tokens)) == 49408
