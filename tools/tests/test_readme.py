"""The snippets of a README: found, marked, run in order, with the README's own line numbers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import readme


def write(folder: Path, *lines: str) -> Path:
    path = folder / "README.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_blocks_share_a_namespace_and_an_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "seen"
    path = write(
        tmp_path,
        "```python",
        "import pathlib",
        "here = list(pathlib.Path().iterdir())",
        "```",
        "words",
        "```python",
        f"pathlib.Path({str(out)!r}).write_text(repr(here))",
        "```",
    )
    before = Path.cwd()
    assert readme.run(path) == 2
    assert out.read_text() == "[]"
    assert Path.cwd() == before
    assert capsys.readouterr().out.splitlines() == ["README.md:2: python", "README.md:7: python"]


def test_a_traceback_names_the_line_of_the_readme(tmp_path: Path) -> None:
    path = write(tmp_path, "# Title", "", "```python", "x = 1", "raise KeyError(x)", "```")
    with pytest.raises(KeyError) as caught:
        readme.run(path)
    last = caught.traceback[-1]
    assert (str(last.path), last.lineno + 1) == (str(path), 5)


def test_a_marked_block_is_listed_and_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, "<!-- not run: downloads 600 MB -->", "", "```python", "raise SystemExit(3)", "```")
    assert readme.run(path) == 0
    assert capsys.readouterr().out == "README.md:4: python not run: downloads 600 MB\n"


def test_a_block_that_is_not_run_must_still_compile(tmp_path: Path) -> None:
    path = write(tmp_path, "<!-- not run: slow -->", "```python", "def (:", "```")
    with pytest.raises(SyntaxError) as caught:
        readme.run(path)
    assert caught.value.lineno == 3


def test_the_mark_of_one_block_does_not_cover_the_next(tmp_path: Path) -> None:
    path = write(tmp_path, "<!-- not run: slow -->", "```python", "1", "```", "```python", "2", "```")
    assert [snippet.not_run for snippet in readme.snippets(path.read_text())] == ["slow", None]


def test_bash_runs_only_where_marked_and_fails_loudly(tmp_path: Path) -> None:
    out = tmp_path / "seen"
    path = write(tmp_path, "```bash", "false", "```", "<!-- run -->", "```bash", f"echo yes > {out}", "```")
    assert readme.run(path) == 1
    assert out.read_text() == "yes\n"
    path = write(tmp_path, "<!-- run -->", "```bash", "false", "true", "```")
    with pytest.raises(subprocess.CalledProcessError):
        readme.run(path)


def test_other_languages_and_inline_fences_are_left_alone() -> None:
    text = "```json\n{}\n```\n\n````markdown\n```python\nraise\n```\n````\n\n- a\n\n  ```py\n  x = 1\n  ```\n"
    (found,) = readme.snippets(text)
    assert (found.language, found.code, found.line) == ("python", "x = 1\n", 14)


def test_a_fence_that_is_never_closed_is_an_error() -> None:
    with pytest.raises(ValueError, match="line 2"):
        list(readme.snippets("words\n```python\nx = 1\n"))


def test_check_fails_with_the_output_of_a_broken_snippet(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"README\.md:2: python(?s:.*)ZeroDivisionError"):
        readme.check(write(tmp_path, "```python", "1 / 0", "```"))
    with pytest.raises(AssertionError, match="no snippet that runs"):
        readme.check(write(tmp_path, "only words"))


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert readme.main([]) == 2
    assert readme.main([str(tmp_path / "none.md")]) == 2
    assert "none.md" in capsys.readouterr().err
