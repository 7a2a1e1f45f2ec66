"""CLIP's vocabulary as the files that transformers' `CLIPTokenizer` reads, made of the one that clip-core carries.

Ids are those of `ClipTokenizer` for texts that need no mending: transformers straightens white space and lower-cases,
and leaves mojibake and HTML entities as they are.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from pathlib import Path

from clip_core.convert.checkpoint import read_json
from clip_core.tokenizer.vocabulary import END_OF_WORD, load_vocabulary

__all__ = ["TOKENIZER_FILES", "clip_tokenizer_files", "clip_vocabulary", "is_clip_vocabulary"]

TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")

_START, _END = "<|startoftext|>", "<|endoftext|>"
_PATTERN = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@functools.cache
def _letters() -> dict[int, str]:
    """The printing character that stands for each byte in GPT-2's vocabularies, which CLIP's is written like."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted({*range(256)} - {*plain})
    return {**{byte: chr(byte) for byte in plain}, **{byte: chr(256 + place) for place, byte in enumerate(others)}}


def _spelled(tokens: Iterable[str]) -> list[str]:
    """Tokens of ours, one Latin-1 character a byte, in transformers' letters; `</w>` is the same in both."""
    letters = _letters()
    return ["".join(letters[ord(character)] for character in token) for token in tokens]


def clip_vocabulary() -> dict[str, int]:
    """CLIP's vocabulary in transformers' spelling: token -> id."""
    *tokens, _, _ = load_vocabulary().tokens
    return {token: index for index, token in enumerate([*_spelled(tokens), _START, _END])}


def is_clip_vocabulary(path: Path) -> bool:
    """Whether the `vocab.json` or `tokenizer.json` at `path` has CLIP's vocabulary."""
    content = read_json(path)
    if path.name == "tokenizer.json":
        content = content.get("model", {}).get("vocab", {})
    return content == clip_vocabulary()


def clip_tokenizer_files(context_length: int) -> dict[str, str]:
    """Name -> text of each of `TOKENIZER_FILES`; rows are padded with end of text, as OpenAI's are on the Hub."""
    vocabulary = clip_vocabulary()
    # The Rust model knows its merges, and gives them in the order of their ranks.
    state = json.loads(load_vocabulary().bpe.__getstate__())
    merges = [" ".join(_spelled(pair)) for pair in state["merges"]]
    special = {"bos_token": _START, "eos_token": _END, "unk_token": _END, "pad_token": _END}
    settings = {
        **special,
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": context_length,
        "do_lower_case": True,
        "add_prefix_space": False,
        "errors": "replace",
        "clean_up_tokenization_spaces": False,
    }
    return {
        "vocab.json": json.dumps(vocabulary, ensure_ascii=False),
        "merges.txt": "\n".join(["#version: 0.2", *merges, ""]),
        "tokenizer.json": _fast(vocabulary, merges),
        "tokenizer_config.json": json.dumps(settings, indent=2) + "\n",
        "special_tokens_map.json": json.dumps(special, indent=2) + "\n",
    }


def _fast(vocabulary: dict[str, int], merges: list[str]) -> str:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    model = models.BPE(vocabulary, pairs, unk_token=_END, end_of_word_suffix=END_OF_WORD, continuing_subword_prefix="")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        (_END, vocabulary[_END]), (_START, vocabulary[_START]), trim_offsets=False, add_prefix_space=False
    )
    tokenizer.add_special_tokens([AddedToken(_START, special=True), AddedToken(_END, special=True)])
    return str(tokenizer.to_str())
