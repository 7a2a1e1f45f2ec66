"""Run tests of Triton's programs in its interpreter, in a process of their own, or with a mistake planted in a program.

Triton reads `TRITON_INTERPRET` when a program is defined, so one process cannot have both.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import clip_core

__all__ = ["Planted", "run_interpreted"]

Planted = tuple[str, str, str]
"""A file under clip_core, what is written there once, and what to write instead."""


def run_interpreted(tests: Path, *arguments: str, plant: Planted | None = None, folder: Path | None = None) -> str:
    """Run pytest on `tests` with Triton's interpreter; what it printed, if at least one test ran and all passed.

    Args:
        tests: a file or folder.
        arguments: further ones for pytest.
        plant: a mistake to plant in a copy of clip_core, made in `folder`. Then at least one test must fail, by an
            assertion, or this raises.
        folder: where the copy goes.

    Raises:
        AssertionError: the outcome is another one, with the output.
    """
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    if plant is not None:
        assert folder is not None
        _copy_with(plant, folder)
        environment["PYTHONPATH"] = os.pathsep.join([str(folder), environment.get("PYTHONPATH", "")])
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    passed, failed = (int((re.findall(rf"(\d+) {word}", output) or ["0"])[-1]) for word in ("passed", "failed"))
    if plant is None:
        assert (done.returncode, bool(passed)) == (0, True), output
    else:
        assert (done.returncode, bool(failed)) == (1, True), f"the planted mistake {plant} was not found\n{output}"
        assert re.search(r"^E +(AssertionError|assert )", output, re.MULTILINE), output
    return output


def _copy_with(plant: Planted, folder: Path) -> None:
    name, old, new = plant
    shutil.copytree(Path(clip_core.__file__).parent, folder / "clip_core", ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "clip_core" / name
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{name} has {old!r} {text.count(old)} times, not once"
    path.write_text(text.replace(old, new), encoding="utf-8")
