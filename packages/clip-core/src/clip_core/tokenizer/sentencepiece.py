"""SentencePiece's model files, read without its library: the parts that CLIP's vocabularies use.

A file is a protocol buffer with pieces and their scores, the kind of model, and a table of Unicode replacements. It
becomes a tokenizer of the Rust `tokenizers`: Unigram (SigLIP, mT5) or byte-pair encoding (Gemma, so SigLIP 2). Left
out: word and character models, and vocabularies whose ids fairseq shifts by one (XLM-R, NLLB), which need their
tokenizer.json.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from clip_core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

__all__ = ["read_model"]

_SPACE = "▁"
_UNIGRAM, _BPE = 1, 2
_KINDS = {_UNIGRAM: "unigram", _BPE: "bpe", 3: "word", 4: "char"}
_NORMAL, _CONTROL, _DEFINED = 1, 3, 4  # kinds of pieces: of the text, never in it, always whole

# Fields of sentencepiece_model.proto: of the file, of a piece, of the trainer's and of the normalizer's record.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE, _SCORE, _TYPE = 1, 2, 3
_MODEL_TYPE, _BYTE_FALLBACK, _UNK_ID, _BOS_ID, _EOS_ID = 3, 35, 40, 41, 42
_CHARACTERS, _DUMMY_PREFIX = 2, 3

Value = int | bytes


@dataclasses.dataclass(frozen=True, slots=True)
class _Model:
    pieces: list[tuple[str, float, int]]
    kind: int
    byte_fallback: bool
    unk_id: int
    bos_id: int
    eos_id: int
    characters: bytes
    prefix: bool


def read_model(path: Path) -> Backend:
    """The tokenizer in `path`; a row ends with the model's end of text.

    Raises:
        ConfigError: it is a kind of model that is not supported.
        DataError: it is no SentencePiece model, or a damaged one.
    """
    from tokenizers import AddedToken, models, processors
    from tokenizers import Tokenizer as Backend

    model = _parse(path)
    if model.kind not in (_UNIGRAM, _BPE):
        raise ConfigError(
            f"{path} is a SentencePiece model of kind {_KINDS.get(model.kind, model.kind)}; allowed: unigram, bpe. "
            "Use the tokenizer.json beside it."
        )
    if [piece for piece, _, _ in model.pieces[:3]] == ["<unk>", "<s>", "</s>"]:
        raise ConfigError(
            f"{path} begins with <unk>, <s>, </s>, as the vocabularies of XLM-R and NLLB do, whose models number their "
            "tokens otherwise. Use the tokenizer.json beside it."
        )
    unknown = model.pieces[model.unk_id][0]
    if model.kind == _UNIGRAM:
        scores = [(piece, score) for piece, score, _ in model.pieces]
        backend = Backend(models.Unigram(scores, unk_id=model.unk_id, byte_fallback=model.byte_fallback))
    else:
        ids = {piece: index for index, (piece, _, _) in enumerate(model.pieces)}
        backend = Backend(
            models.BPE(ids, _merges(model), unk_token=unknown, fuse_unk=True, byte_fallback=model.byte_fallback)
        )
    _split(backend, model)
    backend.add_tokens(
        [
            AddedToken(piece, normalized=False, special=kind == _CONTROL)
            for piece, _, kind in model.pieces
            if kind in (_CONTROL, _DEFINED)
        ]
    )
    if 0 <= model.eos_id < len(model.pieces):
        end = model.pieces[model.eos_id][0]
        backend.post_processor = processors.TemplateProcessing(single=["$A", end], special_tokens=[(end, model.eos_id)])
    return backend


def _split(backend: Backend, model: _Model) -> None:
    """Unicode replacements, then a mark for each space: in front of the text too if the model was trained so."""
    from tokenizers import decoders, normalizers, pre_tokenizers

    replacements = [normalizers.Precompiled(model.characters)] if model.characters else []
    if model.prefix:
        backend.normalizer = normalizers.Sequence(replacements)
        marks = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always", split=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), marks])
        backend.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme="always", split=True)
    else:
        backend.normalizer = normalizers.Sequence([*replacements, normalizers.Replace(" ", _SPACE)])
        backend.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])


def _merges(model: _Model) -> list[tuple[str, str]]:
    """Every pair of pieces that makes a third, best score of the third first: SentencePiece joins by score alone."""
    scores = {piece: score for piece, score, kind in model.pieces if kind == _NORMAL}
    found = [
        (-score, index, (piece[:index], piece[index:]))
        for piece, score in scores.items()
        for index in range(1, len(piece))
        if piece[:index] in scores and piece[index:] in scores
    ]
    found.sort(key=lambda item: item[:2])
    return [pair for _, _, pair in found]


def _parse(path: Path) -> _Model:
    pieces: list[tuple[str, float, int]] = []
    trainer: dict[int, Value] = {}
    normalizer: dict[int, Value] = {}
    try:
        for field, value in _fields(path.read_bytes()):
            if field == _PIECES and isinstance(value, bytes):
                piece = dict(_fields(value))
                text, score = piece[_PIECE], piece.get(_SCORE, b"\0\0\0\0")
                assert isinstance(text, bytes)
                assert isinstance(score, bytes)
                pieces.append((text.decode(), struct.unpack("<f", score)[0], _number(piece, _TYPE, _NORMAL)))
            elif field == _TRAINER and isinstance(value, bytes):
                trainer = dict(_fields(value))
            elif field == _NORMALIZER and isinstance(value, bytes):
                normalizer = dict(_fields(value))
    except (ValueError, KeyError, AssertionError, IndexError, struct.error) as error:
        raise DataError(f"{path} is no SentencePiece model, or a damaged one.") from error
    unk_id = _number(trainer, _UNK_ID, 0)
    if not 0 <= unk_id < len(pieces):
        raise DataError(f"{path} is no SentencePiece model, or a damaged one: it has {len(pieces)} pieces.")
    characters = normalizer.get(_CHARACTERS, b"")
    return _Model(
        pieces=pieces,
        kind=_number(trainer, _MODEL_TYPE, _UNIGRAM),
        byte_fallback=bool(_number(trainer, _BYTE_FALLBACK, 0)),
        unk_id=unk_id,
        bos_id=_number(trainer, _BOS_ID, 1),
        eos_id=_number(trainer, _EOS_ID, 2),
        characters=characters if isinstance(characters, bytes) else b"",
        prefix=bool(_number(normalizer, _DUMMY_PREFIX, 1)),
    )


def _number(record: dict[int, Value], field: int, default: int) -> int:
    value = record.get(field, default)
    # A negative number is written as 64 bits, in two's complement.
    return value - (1 << 64) if isinstance(value, int) and value >= 1 << 63 else int(value)


def _fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """The fields of one record of a protocol buffer, in order: (number, value)."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        wire = key & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield key >> 3, value
            continue
        if wire == 2:
            length, place = _varint(data, place)
        else:
            length = {1: 8, 5: 4}[wire]
        if place + length > len(data):
            raise ValueError("a field runs over the end")
        yield key >> 3, data[place : place + length]
        place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return value, place
        shift += 7
