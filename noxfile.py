"""Every job of the workshop, here and in CI: `pip install nox uv`, then `nox -s demo`, `nox -s test`, `nox --list`.

Each package is tested as its user gets it: from its built wheel, beside the wheels of the packages to its left, and
never beside one to its right. Wheels of ours are always installed by path, so that a package of the same name in a
registry cannot be taken for them. `tools/constraints.txt` pins everything else.
"""

from __future__ import annotations

import atexit
import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"
nox.options.sessions = ["test", "lint"]

ROOT = Path(__file__).parent
PACKAGES = ("clip-core", "clip-hub", "clip-eval", "clip-train")  # imports go only leftward
SOURCES = [ROOT / "packages" / package / "src" for package in PACKAGES]
CONSTRAINTS = str(ROOT / "tools" / "constraints.txt")
WHEELS = ROOT / ".nox" / f"built-{os.getpid()}"  # two calls of nox at once do not meet
DIST = ROOT / "dist"


def module(package: str) -> str:
    """The import name of `package`."""
    return package.replace("-", "_")


def up_to(package: str) -> tuple[str, ...]:
    """`package` and those to its left, leftmost first."""
    return PACKAGES[: PACKAGES.index(package) + 1]


@functools.cache
def wheels() -> dict[str, Path]:
    """The wheel of each package, built once per call of nox."""
    atexit.register(shutil.rmtree, WHEELS, ignore_errors=True)
    for package in PACKAGES:
        uv("build", "--quiet", "--wheel", "--out-dir", WHEELS, "--build-constraint", CONSTRAINTS, f"packages/{package}")
    return {package: next(WHEELS.glob(f"{module(package)}-*.whl")) for package in PACKAGES}


def uv(*args: str | Path) -> None:
    """Run the uv that nox itself uses; where it fails, it has said why."""
    command = [nox.virtualenv.UV, *map(str, args)]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise CommandFailed(f"failed: {' '.join(command)}")


def requirements(packages: Iterable[str], test: Iterable[str] = ()) -> list[str]:
    """What to hand to the installer: our wheels by path, `[test]` after those whose test extra is wanted."""
    tested = set(test)
    fresh = [f"--reinstall-package={package}" for package in PACKAGES]  # same version, new content, reused environment
    return [*fresh, *(f"{wheels()[package]}{'[test]' if package in tested else ''}" for package in packages)]


def environment(name: str, base: str | Path, *install: str) -> Path:
    """A further environment, made anew as .nox/`name` with the Python `base`; its Python."""
    folder = ROOT / ".nox" / name
    shutil.rmtree(folder, ignore_errors=True)
    uv("venv", "--quiet", "--python", base, folder)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    uv("pip", "install", "--quiet", "--python", python, "-c", CONSTRAINTS, *install)
    return python


def choose(arguments: Sequence[str], known: Sequence[str]) -> tuple[list[str], list[str]]:
    """(names of `known` that lead the arguments, the rest): `-- clip-core -k bpe` is (["clip-core"], ["-k", "bpe"])."""
    count = 0
    while count < len(arguments) and arguments[count] in known:
        count += 1
    return list(arguments[:count]), list(arguments[count:])


ONLY_ITS_OWN = """
import importlib.util, pathlib, sys, sysconfig
site = [pathlib.Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")]
present, absent = sys.argv[1].split(), sys.argv[2].split()
for name in present:
    origin = pathlib.Path(importlib.util.find_spec(name).origin).resolve()
    assert any(folder in origin.parents for folder in site), f"{name} comes from {origin}, not from the wheel"
for name in absent:
    assert importlib.util.find_spec(name) is None, f"{name} is importable, and lies to the right"
print("from wheels:", *present, "| absent:", *(absent or ["-"]))
"""


def test_environment(session: nox.Session, package: str) -> None:
    """Install the wheel of `package` with its test extra and the wheels to its left, and see that this is all."""
    session.install("-c", CONSTRAINTS, *requirements(up_to(package), test=[package]))
    check_environment(session, package)


def check_environment(session: nox.Session, package: str) -> None:
    """Fail where a package of ours comes from elsewhere than its wheel, or one to the right of `package` is there."""
    present = up_to(package)
    absent = [other for other in PACKAGES if other not in present]
    names = [" ".join(map(module, group)) for group in (present, absent)]
    session.run("python", "-I", "-c", ONLY_ITS_OWN, *names, silent=False, log=False)


def pytest(session: nox.Session, folder: str, *args: str, none_is_fine: bool = False) -> None:
    """Run the tests of `folder` against what is installed; exit code 5 is "no test was chosen"."""
    # The tests are small: several threads per operation cost more than they bring, and shared runners have few cores.
    env = {"PYTHONPATH": None, "OMP_NUM_THREADS": "1"}
    session.run("python", "-P", "-m", "pytest", folder, *args, env=env, success_codes=[0, 5] if none_is_fine else [0])


@nox.session
@nox.parametrize("package", [nox.param(name, id=name) for name in (*PACKAGES, "tools")])
def test(session: nox.Session, package: str) -> None:
    """Tests, each package in an environment of its own: `-- [clip-core ...] [pytest arguments]`."""
    chosen, rest = choose(session.posargs, (*PACKAGES, "tools"))
    if chosen and package not in chosen:
        session.skip(f"{package} was not asked for")
    if package == "tools":
        session.install("-c", CONSTRAINTS, "nox", "packaging", "pytest")
        pytest(session, "tools/tests", *rest, none_is_fine=bool(rest))
    elif rest:
        test_environment(session, package)
        pytest(session, f"packages/{package}/tests", *rest, none_is_fine=True)
    else:
        # Whole files go to one worker each: what a file's tests share is made once.
        test_environment(session, package)
        session.install("-c", CONSTRAINTS, "pytest-xdist")
        workers = str(min(4, os.cpu_count() or 1))
        pytest(session, f"packages/{package}/tests", "-n", workers, "--dist", "loadfile")


@nox.session
@nox.parametrize("package", [nox.param(name, id=name) for name in PACKAGES])
def parity(session: nox.Session, package: str) -> None:
    """Comparisons with the peers; those that download their weights with `-- network`."""
    chosen, rest = choose(session.posargs, (*PACKAGES, "network"))
    packages = [name for name in chosen if name != "network"]
    if packages and package not in packages:
        session.skip(f"{package} was not asked for")
    marks = "parity and network" if "network" in chosen else "parity and not network and not gpu"
    test_environment(session, package)
    pytest(session, f"packages/{package}/tests", "-v", "-m", marks, *rest, none_is_fine=True)


@nox.session(python="3.11")
@nox.parametrize("package", [nox.param(name, id=name) for name in PACKAGES])
def minimums(session: nox.Session, package: str) -> None:
    """Tests with the oldest versions that the metadata declares, on the oldest Python."""
    chosen, rest = choose(session.posargs, PACKAGES)
    if chosen and package not in chosen:
        session.skip(f"{package} was not asked for")
    own = [str(path) for path in map(wheels().__getitem__, up_to(package))]
    session.install("--resolution", "lowest-direct", *declared(package))
    session.install("--no-deps", *own)
    check_environment(session, package)
    names = [re.split(r"[^\w.-]", requirement)[0] for requirement in declared(package)]
    versions = "import importlib.metadata as m, sys; print(*(f'{name}=={m.version(name)}' for name in sys.argv[1:]))"
    session.run("python", "-I", "-c", versions, *names, silent=False, log=False)
    pytest(session, f"packages/{package}/tests", *rest, none_is_fine=bool(rest))


def declared(package: str) -> list[str]:
    """What `package` and those to its left require of others, and the test extra of `package`, as declared.

    Requirements of a wheel count as indirect for the installer, whose lowest-direct resolution would then take the
    newest of each; so they are handed over one by one.
    """
    import tomllib

    found: list[str] = []
    for name in up_to(package):
        project = tomllib.loads((ROOT / "packages" / name / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        found += project["dependencies"]
        if name == package:
            found += project["optional-dependencies"]["test"]
    return [requirement for requirement in dict.fromkeys(found) if not requirement.startswith(PACKAGES)]


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff, the import contracts and the house rules."""
    session.install("-c", CONSTRAINTS, "ruff", "import-linter", "packaging")
    failed = []
    for command in (
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["lint-imports", "--no-cache"],
        ["python", "tools/check_house.py"],
    ):
        try:
            session.run(*command, env={"PYTHONPATH": os.pathsep.join(map(str, SOURCES))})
        except CommandFailed:
            failed.append(command[0])  # go on: one run tells all
    if failed:
        session.error(f"failed: {', '.join(failed)}")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict, over the four packages and the tools."""
    # With the libraries of the extras, whose types count too.
    peers = requirements(PACKAGES, test=PACKAGES)
    session.install("-c", CONSTRAINTS, *peers, "mypy", "types-regex", "types-tqdm", "packaging")
    packages = [argument for package in PACKAGES for argument in ("-p", module(package))]
    session.run("mypy", *packages, *session.posargs)
    session.run("mypy", *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "tools").glob("*.py"))))


@nox.session(name="wheels")
def wheels_session(session: nox.Session) -> None:
    """Build sdists and wheels into dist/, check what is in them, install each alone, run every README's snippets."""
    session.install("-c", CONSTRAINTS, "twine", "packaging")
    shutil.rmtree(DIST, ignore_errors=True)
    for package in PACKAGES:
        # The wheel is built from the sdist, which proves the sdist whole.
        uv("build", "--quiet", "--out-dir", DIST, "--build-constraint", CONSTRAINTS, f"packages/{package}")
    files = sorted(str(path) for path in DIST.iterdir() if path.suffix in {".whl", ".gz"})
    session.run("twine", "check", "--strict", *files)
    session.run("python", "tools/check_wheels.py", str(DIST))
    for package in PACKAGES:
        own = [str(next(DIST.glob(f"{module(name)}-*.whl"))) for name in up_to(package)]
        python = str(environment(f"wheels-{package}", Path(session.bin) / "python", *own))
        version = f"import {module(package)} as m, importlib.metadata as d; print(m.__name__, d.version('{package}'))"
        session.run(python, "-I", "-W", "error", "-c", version, external=True)
        session.run(python, "tools/readme.py", f"packages/{package}/README.md", external=True)
    session.run(python, "tools/readme.py", "README.md", external=True)


@nox.session
def demo(session: nox.Session) -> None:
    """Train on scikit-learn's digits, evaluate, report, and classify with clip-core alone; about three minutes."""
    session.install("-c", CONSTRAINTS, *requirements(PACKAGES))
    core = environment("demo-core", Path(session.bin) / "python", str(wheels()["clip-core"]))
    session.run("python", "tools/demo.py", "--core-python", str(core), "--output", "demo", *session.posargs)


@nox.session(venv_backend="none")
def bench(session: nox.Session) -> None:
    """The benches, beside their peers: `-- [part of a name ...] [--json FOLDER]`; `gpu` with this machine's torch."""
    arguments = list(session.posargs)
    folder = ROOT / "bench-results"
    if "--json" in arguments:
        place = arguments.index("--json")
        folder = Path(arguments.pop(place + 1)).resolve()
        arguments.pop(place)
    scripts = sorted(ROOT.glob("packages/*/bench/bench_*.py"))
    chosen = [path for path in scripts if not arguments or any(part in path.stem for part in arguments)]
    if not chosen:
        session.error(f"No bench matches {arguments}. There are: {', '.join(path.stem for path in scripts) or 'none'}.")
    if [path.stem for path in chosen] == ["bench_gpu"]:
        python = own_python(session)
    else:
        python = str(environment("bench", sys.executable, *requirements(PACKAGES, test=PACKAGES)))
    folder.mkdir(parents=True, exist_ok=True)
    if folder == ROOT / "bench-results":
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    for path in chosen:
        session.run(python, str(path.relative_to(ROOT)), "--json", str(folder / f"{path.stem}.json"), external=True)


def own_python(session: nox.Session) -> str:
    """This machine's Python, with its own torch; one made for it where there is a device and no torch."""
    python = shutil.which("python3") or sys.executable
    has_torch = subprocess.run([python, "-c", "import torch, pytest"], capture_output=True, check=False).returncode == 0
    if not has_torch and shutil.which("nvidia-smi"):
        session.log(f"{python} has no torch and pytest, but there is a device: installing both")
        return str(environment("gpu", sys.executable, *requirements(PACKAGES, test=PACKAGES)))
    return python


@nox.session(venv_backend="none")
def gpu(session: nox.Session) -> None:
    """What needs CUDA, with this machine's own torch; says so and succeeds where there is no device."""
    session.run(own_python(session), "tools/gpu.py", *session.posargs, external=True)
