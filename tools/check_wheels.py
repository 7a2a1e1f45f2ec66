"""What is in the built files: `python tools/check_wheels.py dist`; exit code 1 where something is missing or too much.

A wheel holds every file of its package's source folder and nothing beside it but metadata with the licence; an sdist
also holds the tests, the changelog and the README.
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

__all__ = ["main", "sdist_problems", "wheel_problems"]

ROOT = Path(__file__).resolve().parent.parent
_LITTER = {"__pycache__", ".DS_Store"}


def _source_files(folder: Path) -> set[str]:
    """Paths relative to `folder` of all the files that belong in a built package."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in files if not _LITTER & set(path.parts)}


def wheel_problems(wheel: Path, source: Path) -> list[str]:
    """What is wrong with `wheel`, built of the folder `source` (.../src), one sentence each."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    info = {name for name in names if PurePosixPath(name).parts[0].endswith(".dist-info")}
    wanted = _source_files(source)
    problems = [f"{wheel.name}: lacks {name}" for name in sorted(wanted - names)]
    problems += [f"{wheel.name}: should not hold {name}" for name in sorted(names - wanted - info)]
    if not any(name.endswith("/licenses/LICENSE") for name in info):
        problems.append(f"{wheel.name}: lacks the licence")
    if not any(PurePosixPath(name).name == "py.typed" for name in names):
        problems.append(f"{wheel.name}: lacks py.typed")
    return problems


def sdist_problems(sdist: Path, package: Path) -> list[str]:
    """What the `sdist` of the folder `package` lacks, one sentence each."""
    with tarfile.open(sdist) as archive:
        names = {"/".join(PurePosixPath(name).parts[1:]) for name in archive.getnames()}
    wanted = {f"src/{name}" for name in _source_files(package / "src")}
    wanted |= {f"tests/{name}" for name in _source_files(package / "tests")}
    wanted |= {"README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml"}
    return [f"{sdist.name}: lacks {name}" for name in sorted(wanted - names)]


def main(arguments: list[str]) -> int:
    """Exit code: 0, or 1 where a file is wrong or a package was not built."""
    dist = Path(arguments[0] if arguments else "dist")
    problems: list[str] = []
    for package in sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml")):
        stem = package.name.replace("-", "_")
        wheels, sdists = sorted(dist.glob(f"{stem}-*.whl")), sorted(dist.glob(f"{stem}-*.tar.gz"))
        if len(wheels) != 1 or len(sdists) != 1:
            problems.append(
                f"{package.name}: {len(wheels)} wheels and {len(sdists)} sdists in {dist}, want one of each"
            )
            continue
        problems += wheel_problems(wheels[0], package / "src") + sdist_problems(sdists[0], package)
        print(
            f"{wheels[0].name} {wheels[0].stat().st_size:,} bytes, {sdists[0].name} {sdists[0].stat().st_size:,} bytes"
        )
    print("\n".join(problems) or "what was built is whole")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
