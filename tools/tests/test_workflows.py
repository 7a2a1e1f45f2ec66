"""The workflows and the noxfile name the same sessions, and every action is pinned."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TEXT = "\n".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)


def sessions() -> set[str]:
    text = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    found = re.findall(r"^@nox\.session(?:\((.*?)\))?\n(?:@.*\n)*def (\w+)", text, re.MULTILINE)
    named = [(re.search(r'name="(\w+)"', arguments), function) for arguments, function in found]
    return {match[1] if match else function for match, function in named}


def test_every_session_is_a_job_and_every_job_a_session() -> None:
    called = {name for group in re.findall(r"nox\"? -s ((?:[a-z]+ ?)+)", TEXT) for name in group.split()}
    assert called == sessions()
    assert {"demo", "test", "lint", "types", "wheels", "minimums", "bench", "gpu", "parity"} == sessions()


def test_actions_are_pinned_to_a_version() -> None:
    uses = re.findall(r"uses: (\S+)", TEXT)
    assert uses
    assert [name for name in uses if not re.search(r"@v\d+\.\d+\.\d+$", name)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_jobs_may_only_read_unless_they_publish(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "\npermissions:\n  contents: read\n" in text
    assert ("id-token: write" in text) == (path.name == "release.yml")


def test_tests_run_on_every_declared_python() -> None:
    declared = {
        frozenset(re.findall(r"Programming Language :: Python :: (3\.\d+)", path.read_text(encoding="utf-8")))
        for path in ROOT.glob("packages/*/pyproject.toml")
    }
    matrix = re.search(r"python: \[(.*)\]", TEXT)
    assert matrix is not None
    assert declared == {frozenset(re.findall(r"3\.\d+", matrix[1]))}
