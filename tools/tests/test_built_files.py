"""What is missing in a built file, or too much, is named."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

import check_wheels
import gpu

GOOD = ["clip_x/__init__.py", "clip_x/py.typed", "clip_x/words.txt", "clip_x-1.dist-info/licenses/LICENSE"]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name in ("__init__.py", "py.typed", "words.txt", "__pycache__/__init__.pyc"):
        path = tmp_path / "clip-x/src/clip_x" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "clip-x/tests").mkdir()
    (tmp_path / "clip-x/tests/test_x.py").touch()
    return tmp_path / "clip-x"


def wheel_problems(package: Path, names: list[str]) -> list[str]:
    wheel = package / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return check_wheels.wheel_problems(wheel, package / "src")


def test_wheels(package: Path) -> None:
    assert wheel_problems(package, GOOD) == []
    assert wheel_problems(package, [*GOOD, "tests/test_x.py"]) == ["x.whl: should not hold tests/test_x.py"]
    assert wheel_problems(package, [name for name in GOOD if "words" not in name]) == ["x.whl: lacks clip_x/words.txt"]
    assert wheel_problems(package, GOOD[:-1]) == ["x.whl: lacks the licence"]
    assert "x.whl: lacks py.typed" in wheel_problems(package, [name for name in GOOD if "typed" not in name])


def test_sdists(package: Path) -> None:
    sdist = package / "x.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        archive.add(package / "src", "x-1/src")
    lacking = check_wheels.sdist_problems(sdist, package)
    wanted = ["CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml", "tests/test_x.py"]
    assert lacking == [f"x.tar.gz: lacks {name}" for name in wanted]


def test_gpu_collects_only_marked_files(tmp_path: Path) -> None:
    folder = tmp_path / "packages/clip-x/tests"
    folder.mkdir(parents=True)
    (folder / "test_cpu.py").write_text("import a_peer_that_is_not_there\n")
    (folder / "test_gpu.py").write_text("import pytest\n\npytestmark = pytest.mark.gpu\n")
    assert gpu.marked_files(tmp_path) == [folder / "test_gpu.py"]


def test_gpu_help_is_help_also_where_there_is_no_device(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("--help", "-h"):
        assert gpu.main([word]) == 0
        assert "compute-sanitizer" in capsys.readouterr().out
