"""Write the byte-pair vocabulary that clip-core packages, from the open_clip installed beside it.

    python tools/build_vocabulary.py            write vocabulary.bin and vocabulary.json
    python tools/build_vocabulary.py --check    write nothing; exit 1 if the packaged files differ

The two files are described in clip_core/tokenizer/vocabulary.py. What is compared is the payload, not its compression,
which may differ between builds of zlib.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib.metadata
import importlib.util
import json
import struct
import sys
import zlib
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "packages/clip-core/src/clip_core/tokenizer"
PEER = "open_clip_torch"
FILE = "bpe_simple_vocab_16e6.txt.gz"
BYTE_TOKENS = 512  # each byte, within a word and at its end
MERGES = 48_894  # a vocabulary of 49,408, less the byte tokens and the two special ones


def build() -> tuple[bytes, dict[str, str]]:
    """The payload, and the record that goes beside it, from the installed peer's file."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or spec.origin is None:
        sys.exit(f"{PEER} is not installed here; install clip-core's test extra")
    source = (Path(spec.origin).parent / FILE).read_bytes()
    # The first line is a heading; the merges beyond the vocabulary's size were never used.
    lines = gzip.decompress(source).decode("utf-8").split("\n")[1 : MERGES + 1]
    payload = pack([tuple(line.split()) for line in lines])
    record = {
        "what": f"{MERGES} merges as pairs of little-endian uint16 token ids, in order of rank, zlib-compressed",
        "sha256": hashlib.sha256(payload).hexdigest(),
        "origin": f"open_clip/{FILE} of {PEER}, first published with OpenAI's CLIP (https://github.com/openai/CLIP)",
        "origin_version": importlib.metadata.version(PEER),
        "origin_sha256": hashlib.sha256(source).hexdigest(),
        "licence": "MIT, Copyright (c) 2021 OpenAI",
    }
    return payload, record


def pack(merges: list[tuple[str, ...]]) -> bytes:
    """Merges of spelled tokens as pairs of ids, after checking what the tokenizer's exactness rests on."""
    # The file spells a byte that does not print, in Latin-1, by the next character from U+0100 on.
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    symbols = [chr(byte) for byte in visible] + [chr(256 + index) for index in range(256 - len(visible))]
    ids = {token: index for index, token in enumerate([*symbols, *(symbol + "</w>" for symbol in symbols)])}
    pairs = bytearray()
    for left, right in merges:
        if left not in ids or right not in ids or left + right in ids:
            sys.exit(f"merge {left!r} {right!r} has a part that no earlier merge makes, or makes a token a second time")
        pairs += struct.pack("<HH", ids[left], ids[right])
        ids[left + right] = len(ids)
    if len(ids) != BYTE_TOKENS + MERGES:
        sys.exit(f"the peer's file gives {len(ids)} tokens, not {BYTE_TOKENS + MERGES}")
    return bytes(pairs)


def main() -> int:
    """Write the two files, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the packaged files and write nothing")
    check: bool = parser.parse_args().check
    payload, record = build()
    binary, beside = FOLDER / "vocabulary.bin", FOLDER / "vocabulary.json"
    if check:
        same = zlib.decompress(binary.read_bytes()) == payload and json.loads(beside.read_text("utf-8")) == record
        print(f"{'as built' if same else 'differs'}: {binary.name}, {beside.name}")
        return 0 if same else 1
    binary.write_bytes(zlib.compress(payload, 9))
    beside.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    print(f"wrote {binary} ({binary.stat().st_size} bytes) and {beside.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
