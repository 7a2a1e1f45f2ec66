"""Captions per second of clip-core's tokenizer and of open_clip's `SimpleTokenizer`, in one process and one run.

    python bench_tokenizer.py [--rounds 9] [--captions 2000] [--json FILE]

The sentences are English prose found on this machine: the docstrings of torch, numpy and the standard library. Both
tokenizers get the same lists; rounds alternate between them; the figures are medians. Both are warm: each has
tokenized every caption of the `warm` rows before, and other prose before the `first sight` row.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import random
import re
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import torch

from clip_core.tokenizer import ClipTokenizer

CONSONANTS, VOWELS = "bcdfghjklmnprstvwz", "aeiou"
NOT_ASCII = ["café", "naïve", "it’s", "“soft”", "–", "jalapeño", "Zürich", "…", "3 × 4", "fish &amp; chips"]

Batches = Callable[[int], list[str]]  # round -> captions


def prose(limit: int) -> list[str]:
    """Up to `limit` different sentences of 5 to 18 words, shuffled, from docstrings of installed modules."""
    roots = [Path(torch.__file__).parent, Path(sysconfig.get_paths()["stdlib"])]
    found: dict[str, None] = {}
    for path in (path for root in roots for path in sorted(root.glob("*.py")) + sorted(root.glob("*/*.py"))):
        try:
            nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) > 60:
                for sentence in re.split(r"(?<=[.:;])\s+|\n\s*\n", node.value):
                    words = sentence.split()
                    if (
                        5 <= len(words) <= 18
                        and sum(word.strip(".,;:()'").isalpha() for word in words) > len(words) - 3
                    ):
                        found[" ".join(words)] = None
        if len(found) > 2 * limit:
            break
    sentences = list(found)
    random.Random(0).shuffle(sentences)
    return sentences[:limit]


def cases(captions: int, rounds: int) -> dict[str, Batches]:
    """What is measured: name -> captions of a round."""
    rng = random.Random(1)
    sentences = prose(captions * (rounds + 3))
    warm, other, fresh = sentences[:captions], sentences[captions : 2 * captions], sentences[2 * captions :]
    size = len(fresh) // (rounds + 1)

    def accented(text: str) -> str:
        return f"{text} {rng.choice(NOT_ASCII)}" if rng.random() < 0.05 else text

    def invented() -> str:
        syllables = [rng.choice(CONSONANTS) + rng.choice(VOWELS) + rng.choice(["", "", "n", "r", "st"]) for _ in "123"]
        return "".join(syllables)

    mixed = [accented(text) for text in other]
    return {
        "captions, warm": lambda _: warm,
        "captions, 1 in 20 not plain ASCII, warm": lambda _: mixed,
        "captions, at first sight": lambda turn: fresh[turn * size : (turn + 1) * size],
        "8 invented words each, never seen": lambda _: [
            " ".join(invented() for _ in range(8)) for _ in range(captions // 4)
        ],
    }


def seconds_per_text(call: Callable[[list[str]], object], texts: list[str], batch: int) -> float:
    """Mean time per caption of `texts`, given in lists of `batch`."""
    lists = [texts[start : start + batch] for start in range(0, len(texts), batch)]
    start = time.perf_counter()
    for each in lists:
        call(each)
    return (time.perf_counter() - start) / len(texts)


def measure(rounds: int, captions: int) -> list[dict[str, object]]:
    """One row per case: captions per second of both, and the ratio of the medians."""
    from open_clip.tokenizer import SimpleTokenizer

    ours, peer = ClipTokenizer(), SimpleTokenizer()
    rows: list[dict[str, object]] = []
    for name, batches in cases(captions, rounds).items():
        for batch in (512, 1) if name == "captions, warm" else (512,):
            times: dict[str, list[float]] = {"ours": [], "peer": []}
            for turn in range(rounds + 1):
                texts = batches(turn)
                for side, call in (("ours", ours), ("peer", peer)) if turn % 2 else (("peer", peer), ("ours", ours)):
                    times[side].append(seconds_per_text(call, texts, batch))
                if not torch.equal(ours(texts[:200]), peer(texts[:200])):
                    sys.exit(f"{name}: the two tokenizers differ")
            fast, slow = (statistics.median(times[side][1:]) for side in ("ours", "peer"))  # the first round warms
            case = name if batch > 1 else f"{name}, one per call"
            rows.append({"case": case, "ours": 1 / fast, "peer": 1 / slow, "ratio": slow / fast})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--captions", type=int, default=2000, help="captions per round")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(arguments.rounds, arguments.captions)
    print(f"{'captions per second':<42}{'clip-core':>12}{'open_clip':>12}{'ratio':>8}")
    for row in rows:
        print(f"{row['case']:<42}{row['ours']:>12,.0f}{row['peer']:>12,.0f}{row['ratio']:>8.1f}")
    if arguments.json:
        machine = {
            "platform": platform.platform(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        }
        report = {"bench": "tokenizer", "machine": machine, "rows": rows}
        arguments.json.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
