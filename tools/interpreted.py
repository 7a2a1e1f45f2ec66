"""Run tests of Triton's programs in its interpreter, in a process of their own, or with a mistake planted in a program.

Triton reads `TRITON_INTERPRET` when a program is defined, so one process cannot have both. Importing torch, and what an
operation of it needs, takes longer than most of these tests: one process does this once and forks another for each run.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

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
    if plant is not None:
        assert folder is not None
        _copy_with(plant, folder)
    with tempfile.NamedTemporaryFile("r", encoding="utf-8", errors="replace") as file:
        command = ["-q", "-p", "no:cacheprovider", str(tests), *arguments]
        code = _ask({"pytest": command, "copy": str(folder) if plant else "", "in": os.getcwd(), "output": file.name})
        output = file.read()
    passed, failed = (int((re.findall(rf"(\d+) {word}", output) or ["0"])[-1]) for word in ("passed", "failed"))
    if plant is None:
        assert (code, bool(passed)) == (0, True), output
    else:
        assert (code, bool(failed)) == (1, True), f"the planted mistake {plant} was not found\n{output}"
        assert re.search(r"^E +(AssertionError|assert )", output, re.MULTILINE), output
    return output


def _copy_with(plant: Planted, folder: Path) -> None:
    name, old, new = plant
    found = importlib.util.find_spec("clip_core")
    assert found is not None
    assert found.origin is not None
    shutil.copytree(Path(found.origin).parent, folder / "clip_core", ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "clip_core" / name
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{name} has {old!r} {text.count(old)} times, not once"
    path.write_text(text.replace(old, new), encoding="utf-8")


def _ask(request: dict[str, object]) -> int:
    """The exit code of what `_serve` does with a request."""
    process = _server()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    assert answer, "the process that runs Triton's interpreter has ended"
    return int(answer)


@functools.cache
def _server() -> subprocess.Popen[str]:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", __file__]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)
    atexit.register(process.communicate)  # the end of its input is its end
    return process


def _serve() -> None:
    """Fork a process for each line of the input, a request as JSON, and print its exit code."""
    import pytest
    import torch._dynamo  # noqa: F401 - the first call of an operation of ours imports it
    import triton.language
    import triton.runtime.interpreter  # noqa: F401

    # clip_core is not imported here: each run may have another copy of it.
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            output = os.open(request["output"], os.O_WRONLY | os.O_TRUNC)
            for stream in (1, 2):
                os.dup2(output, stream)
            os.chdir(request["in"])
            if request["copy"]:
                sys.path.insert(0, request["copy"])
            code = 70  # of an exception outside of any test
            try:
                code = int(pytest.main(request["pytest"]))
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
