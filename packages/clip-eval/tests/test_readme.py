"""The README keeps its word: its snippets run with this package and what it depends on alone."""

from __future__ import annotations

from pathlib import Path

import readme


def test_every_snippet_of_the_readme_runs() -> None:
    output = readme.check(Path(__file__).parent.parent / "README.md")
    assert "README.md:" in output, "the README shows no Python at all"
