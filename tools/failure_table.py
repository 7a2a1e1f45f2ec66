"""Writes the failure table of clip-train from its tests: what may go wrong, what is promised, which test injects it.

    python tools/failure_table.py            writes packages/clip-train/FAILURES.md
    python tools/failure_table.py --check    exit code 1 where that page is not what the tests say

A test takes part by `@pytest.mark.failure(row, promise=...)`. What this leaves out: whether the tests pass.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import NamedTuple

__all__ = ["PAGE", "ROWS", "Injection", "injections", "main", "page"]

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "packages" / "clip-train" / "tests"
PAGE = ROOT / "packages" / "clip-train" / "FAILURES.md"

ROWS = (
    "corrupt tar",
    "corrupt jpeg",
    "pipe exits 1",
    "pipe hangs",
    "hung rank",
    "dead rank",
    "network cut",
    "one NaN loss",
    "loss spike",
    "SIGTERM / SLURM",
    "stragglers",
    "uneven ends",
    "disk full",
    "partial checkpoint",
    "worker killed",
)
"""What may go wrong; each needs a test."""

_HEAD = """# What may go wrong, and what happens then

Each row has a test that injects the fault into a run, and asserts the promised outcome. Written by
`tools/failure_table.py` from the tests.

| fault | what is promised | test |
|---|---|---|
"""


class Injection(NamedTuple):
    """A test, and the row and promise that it stands for."""

    row: str
    promise: str
    test: str


def injections(folder: Path) -> list[Injection]:
    """Those of the test files in `folder`, by file and line. Raises `ValueError` for a mark that cannot be read."""
    found: list[Injection] = []
    for path in sorted(folder.glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef):
                continue
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.failure":
                    try:
                        (row,) = (ast.literal_eval(word) for word in mark.args)
                        promise = {word.arg: ast.literal_eval(word.value) for word in mark.keywords}["promise"]
                    except (ValueError, KeyError) as error:
                        raise ValueError(f"{path.name}, {node.name}: the mark has to be (row, promise=...).") from error
                    found.append(Injection(row, promise, f"{path.name}::{node.name}"))
    return found


def page(found: list[Injection]) -> str:
    """The table. Raises `ValueError` for a row without a test, and for a mark of no row."""
    missing = [row for row in ROWS if row not in {one.row for one in found}]
    unknown = sorted({one.row for one in found} - set(ROWS))
    if missing or unknown:
        raise ValueError(f"Rows without a test: {missing}. Tests of no row: {unknown}.")
    lines = [f"| {one.row} | {one.promise} | `{one.test}` |" for row in ROWS for one in found if one.row == row]
    return _HEAD + "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Write the page, or with --check compare it; the exit code."""
    text = page(injections(TESTS))
    if arguments == ["--check"]:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
            return 0
        print(f"{PAGE} is not what the tests say: python tools/failure_table.py")
        return 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
