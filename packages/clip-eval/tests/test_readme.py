"""The README keeps its word: its snippets run with this package and what it depends on alone."""

from __future__ import annotations

import shlex
from pathlib import Path

import readme
from clip_eval.cli import _as_table, make_parser

_README = Path(__file__).parent.parent / "README.md"


def test_every_snippet_of_the_readme_runs() -> None:
    output = readme.check(_README)
    assert "README.md:" in output, "the README shows no Python at all"


def test_every_command_of_the_readme_is_one() -> None:
    """Those that are only shown, too: `make_parser` leaves with code 2 for a flag that there is not."""
    seen = set()
    for snippet in readme.snippets(_README.read_text(encoding="utf-8")):
        for line in snippet.code.replace("\\\n", " ").splitlines() if snippet.language == "bash" else ():
            words = shlex.split(line, comments=True)
            if words[:1] == ["torchrun"]:
                words = ["clip-eval", *words[words.index("clip_eval") + 1 :]]
            if words[:1] == ["clip-eval"]:
                seen.add(make_parser().parse_args(_as_table(words[1:])).command)
    assert seen >= {"run", "eval", "build", "table", "compare", "regress", "report"}
