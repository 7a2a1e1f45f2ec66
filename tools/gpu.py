"""Run the tests that need a CUDA device: `python tools/gpu.py [pytest arguments]`, with this Python's own torch.

For a machine with a GPU where nothing can be installed: it takes the packages from their source folders and collects
only the test files that carry the mark, so peers that are missing there do not matter. Where there is no device it
says so and succeeds.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

__all__ = ["main", "marked_files"]

ROOT = Path(__file__).resolve().parent.parent
NO_TEST_CHOSEN = 5  # pytest's exit code


def marked_files(root: Path) -> list[Path]:
    """The test files under `root`/packages that mark a test, or all of them, with `gpu`."""
    files = sorted(root.glob("packages/*/tests/**/test_*.py"))
    return [path for path in files if re.search(r"\bmark\.gpu\b", path.read_text(encoding="utf-8"))]


def _no_device() -> str | None:
    """Why nothing can run here, or None where a CUDA device answers."""
    if importlib.util.find_spec("torch") is None:
        return f"no CUDA device (no torch in {sys.executable})"
    import torch

    return None if torch.cuda.is_available() else f"no CUDA device (torch {torch.__version__} sees none)"


def main(arguments: list[str]) -> int:
    """Exit code: pytest's, or 0 where there is no device or no marked test."""
    reason = _no_device()
    if reason is not None:
        print(f"{reason}: nothing run")
        return 0
    files = marked_files(ROOT)
    if not files:
        print("no test carries the mark gpu: nothing run")
        return 0
    sources = [str(path) for path in sorted(ROOT.glob("packages/*/src"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sources, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "pytest", "-m", "gpu", *arguments, *(str(path) for path in files)]
    code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    return 0 if code == NO_TEST_CHOSEN else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
