"""Run the tests that need a CUDA device: `python tools/gpu.py [sanitize | pytest arguments]`, with this Python's torch.

For a machine with a GPU where nothing can be installed: it takes the packages from their source folders and collects
only the test files that carry the mark, so peers that are missing there do not matter. Without arguments the programs
then run once more, small, under compute-sanitizer, which finds reads and writes outside of a tensor and races;
`sanitize` does only this. Where there is no device, or no compute-sanitizer, it says so and succeeds.

With pytest-xdist the tests run in several processes (most of the time goes into compiling programs), with
pytest-timeout none of them hangs for ever.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["main", "marked_files", "sanitize", "pytest_command"]

ROOT = Path(__file__).resolve().parent.parent
NO_TEST_CHOSEN = 5  # pytest's exit code
WORKERS = 8
SANITIZER_SECONDS = 120  # each of its tools
_SANITIZERS = ("/usr/local/cuda/bin/compute-sanitizer", "/usr/local/cuda/compute-sanitizer/compute-sanitizer")


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


def pytest_command(files: list[Path], arguments: list[str], *, workers: int = WORKERS) -> list[str]:
    """The call of pytest on `files`; libraries here are not those that were tested with, so their warnings pass."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-W", "default", "-p", "no:cacheprovider"]
    if workers > 1 and importlib.util.find_spec("xdist") is not None:
        command += ["-n", str(workers)]
    if importlib.util.find_spec("pytest_timeout") is not None:
        command += ["--timeout", "300"]
    return [*command, *arguments, *(str(path) for path in files)]


def sanitize(files: list[Path], environment: dict[str, str]) -> int:
    """Run the tests named `test_small_run` of `files` under memcheck and racecheck; 1 where one finds something."""
    program = shutil.which("compute-sanitizer") or next((path for path in _SANITIZERS if Path(path).exists()), None)
    if program is None:
        print("no compute-sanitizer on this machine: memory accesses and races were not checked")
        return 0
    # Without torch's cache each tensor is an allocation of its own, with an end that memcheck knows.
    environment = {**environment, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    tests = pytest_command(files, ["-q", "-k", "small_run"], workers=1)
    failed = 0
    for tool in ("memcheck", "racecheck"):
        command = [program, "--tool", tool, "--error-exitcode", "1", "--target-processes", "all", *tests]
        start = time.monotonic()
        try:
            code = subprocess.run(command, cwd=ROOT, env=environment, check=False, timeout=SANITIZER_SECONDS).returncode
        except subprocess.TimeoutExpired:
            print(f"{tool}: not through after {SANITIZER_SECONDS} s, nothing can be said")
            continue
        print(f"{tool}: {'nothing found' if code == 0 else f'exit code {code}'}, {time.monotonic() - start:.0f} s")
        failed |= int(code != 0)
    return failed


def main(arguments: list[str]) -> int:
    """Exit code: pytest's, else that of `sanitize`; 0 for help, and where there is no device or no marked test."""
    if {"-h", "--help"} & {*arguments}:
        print(__doc__)
        return 0
    reason = _no_device()
    if reason is not None:
        print(f"{reason}: nothing run")
        return 0
    files = marked_files(ROOT)
    if not files:
        print("no test carries the mark gpu: nothing run")
        return 0
    sources = [str(path) for path in sorted(ROOT.glob("packages/*/src"))]
    path = os.pathsep.join([*sources, str(ROOT / "tools"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "4")}
    programs = [path for path in files if "test_small_run" in path.read_text(encoding="utf-8")]
    if arguments == ["sanitize"]:
        return sanitize(programs, environment)
    code = subprocess.run(pytest_command(files, arguments), cwd=ROOT, env=environment, check=False).returncode
    code = 0 if code == NO_TEST_CHOSEN else code
    return code or (0 if arguments else sanitize(programs, environment))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
