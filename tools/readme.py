"""Run the snippets of a README as its reader would: `python tools/readme.py README.md ...`.

Blocks fenced as `python` run in order, in one namespace and in an empty folder. A block that cannot run everywhere
(it downloads, or wants a data set) says so above itself with a comment such as `<!-- not run: downloads weights -->`;
it is listed, not executed, but has to compile. A block fenced as `bash` runs when the comment `<!-- run -->` stands
above it. Other blocks are only shown. Tracebacks name the README and its line.
"""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["Snippet", "check", "main", "run", "snippets"]

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,}|~{3,}) *(?P<language>\w*).*$")
_NOT_RUN = re.compile(r"<!--\s*not run:\s*(?P<reason>.*?)\s*-->")
_RUN = re.compile(r"<!--\s*run\s*-->")


@dataclasses.dataclass(frozen=True, slots=True)
class Snippet:
    """One fenced block. `line` is the 1-based line of its first line of code."""

    language: str
    line: int
    code: str
    not_run: str | None  # the reason why it is not executed


def snippets(text: str) -> Iterator[Snippet]:
    """The Python and bash blocks of a Markdown text, in order. `ValueError` where a fence is never closed."""
    lines = text.splitlines()
    above = ""
    number = 0
    while number < len(lines):
        opening = _FENCE.match(lines[number])
        if opening is None:
            above = lines[number] if lines[number].strip() else above
            number += 1
            continue
        first = number + 1
        number = first
        while number < len(lines) and not lines[number].strip().startswith(opening["ticks"]):
            number += 1
        if number == len(lines):
            raise ValueError(f"line {first}: the block that begins here is never closed")
        indent = len(opening["indent"])
        code = "".join(line[indent:] + "\n" for line in lines[first:number])
        language = {"py": "python", "sh": "bash", "shell": "bash"}.get(opening["language"], opening["language"])
        if language in {"python", "bash"}:
            yield Snippet(language, first + 1, code, _reason(language, above))
        above = ""
        number += 1


def _reason(language: str, above: str) -> str | None:
    """Why a block is not run, from the line above it."""
    marked = _NOT_RUN.search(above)
    if marked:
        return marked["reason"]
    return "not marked <!-- run -->" if language == "bash" and not _RUN.search(above) else None


def run(path: Path) -> int:
    """Run the snippets of the README at `path` in this process and an empty folder; the number that ran.

    Prints one line per snippet. What a snippet raises goes to the caller; a bash block that fails raises
    `subprocess.CalledProcessError`.
    """
    found = list(snippets(path.read_text(encoding="utf-8")))
    namespace: dict[str, Any] = {"__name__": "__main__"}
    count = 0
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="readme-") as folder:
        os.chdir(folder)
        try:
            for snippet in found:
                place = f"{path.name}:{snippet.line}"
                # Empty lines in front make Python's line numbers those of the README.
                code = "\n" * (snippet.line - 1) + snippet.code
                program = compile(code, str(path), "exec", dont_inherit=True) if snippet.language == "python" else None
                if snippet.not_run is not None:
                    print(f"{place}: {snippet.language} not run: {snippet.not_run}", flush=True)
                    continue
                print(f"{place}: {snippet.language}", flush=True)
                if program is not None:
                    exec(program, namespace)  # noqa: S102  (running the README is the purpose)
                else:
                    _bash(snippet.code)
                count += 1
        finally:
            os.chdir(before)
    return count


def _bash(code: str) -> None:
    """Run a bash block, the commands of this Python's environment first on the path."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    subprocess.run(["bash", "-euo", "pipefail", "-c", code], check=True, env={**os.environ, "PATH": path})


def check(path: Path) -> str:
    """Run the README at `path` in a process of its own, for tests; its output.

    `AssertionError` with the output where a snippet fails or where there was none to run.
    """
    command = [sys.executable, __file__, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode:
        raise AssertionError(f"{path} does not run:\n{done.stdout}\n{done.stderr}")
    if "nothing ran" in done.stdout:
        raise AssertionError(f"{path} has no snippet that runs:\n{done.stdout}")
    return done.stdout


def main(arguments: list[str]) -> int:
    """Exit code: 0, or 2 for a README that is missing. A snippet that fails raises."""
    if not arguments:
        print("usage: python tools/readme.py README.md ...", file=sys.stderr)
        return 2
    for name in arguments:
        path = Path(name).resolve()
        if not path.is_file():
            print(f"readme: no such file: {name}", file=sys.stderr)
            return 2
        count = run(path)
        print(f"{name}: {count or 'nothing'} ran")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
