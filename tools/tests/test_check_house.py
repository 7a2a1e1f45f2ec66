"""Each house rule finds the one violation planted in a tree that breaks none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from check_house import findings
from house.tree import Tree

ORDER = ("clip-core", "clip-hub")
CORE, HUB = Path("packages/clip-core"), Path("packages/clip-hub")
MODULE = (
    '"""A room."""\n\nimport numpy\n\n__all__ = ["f"]\n\n\ndef f(x):\n    return numpy.abs(x)\n' + "# a reason\n" * 30
)


def write(root: Path, path: Path, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text, encoding="utf-8")


def pyproject(name: str, *dependencies: str, test: tuple[str, ...] = ("pytest>=8",)) -> str:
    lines = ["[project]", f'name = "{name}"', "dependencies = ["]
    lines += [f'    "{text}",' for text in dependencies]
    lines += ["]", "[project.optional-dependencies]", "test = ["]
    return "\n".join([*lines, *(f'    "{text}",' for text in test), "]"]) + "\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two packages that keep every rule."""
    for package, dependencies in ((CORE, ["numpy>=1.26"]), (HUB, ["clip-core>=0.1,<0.2", "numpy>=1.26"])):
        module = package.name.replace("-", "_")
        source = package / "src" / module
        for name in ("README.md", "LICENSE"):
            write(tmp_path, package / name, "words\n")
        write(tmp_path, package / "CHANGELOG.md", "# Changelog\n\n## 0.1.0 (unreleased)\n")
        write(tmp_path, package / "pyproject.toml", pyproject(package.name, *dependencies))
        write(tmp_path, source / "py.typed", "")
        write(tmp_path, source / "__about__.py", '__version__ = "0.1.0"\n')
        write(tmp_path, source / "__init__.py", '"""A package."""\n')
        write(tmp_path, source / "room.py", MODULE)
        write(tmp_path, package / "tests/test_room.py", f"import {module}.room\n")
    return tmp_path


def found(root: Path, *, hints: bool = False) -> list[str]:
    files = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    return [str(finding) for finding in findings(Tree(root, files, ORDER)) if finding.hint == hints]


def test_a_tree_that_keeps_the_rules_is_clean(root: Path) -> None:
    assert found(root) == []
    assert found(root, hints=True) == []


def test_a_long_file(root: Path) -> None:
    write(root, CORE / "src/clip_core/room.py", MODULE + "# more\n" * 300)
    assert found(root) == []
    assert [line.partition(" lines")[0] for line in found(root, hints=True)] == [
        "packages/clip-core/src/clip_core/room.py:1: hint: 339"
    ]
    write(root, CORE / "src/clip_core/room.py", MODULE + "# more\n" * 500)
    assert found(root) == ["packages/clip-core/src/clip_core/room.py:1: 539 lines: split before 500"]


SOURCE = CORE / "src/clip_core"
PLANTED = [
    (SOURCE / "utils.py", '"""Bits."""\n\n__all__ = []\n', ":1: no utils.py"),
    (SOURCE / "room.py", MODULE.replace('"""A room."""\n', ""), ":1: no module docstring"),
    (SOURCE / "room.py", MODULE.replace("__all__", "names"), ":1: no __all__"),
    (SOURCE / "__init__.py", '"""A package."""\n\nX = 1\n', ":1: no __all__"),
    (SOURCE / "room.py", MODULE + "print(1)\n", ":40: print in library code"),
    (SOURCE / "kernels/room.py", MODULE + "import os\nif os.environ:\n    f(1)\n", ":41: environment flag"),
    (SOURCE / "kernels/room.py", MODULE + "from os import getenv\n", ":40: environment flag"),
    (SOURCE / "vit.py", MODULE, ":1: no test mirrors it"),
    (SOURCE / "room.py", MODULE + "def g():\n    import yaml\n", ":41: imports yaml, which clip-core does not declare"),
    (CORE / "tests/test_room.py", "import clip_core.room\nimport sklearn\n", ":2: the test imports sklearn"),
    (CORE / "tests/test_room.py", "import clip_core.room\nimport clip_hub\n", ":2: the test imports clip_hub"),
    (CORE / "CHANGELOG.md", "# Changelog\n\n## 0.2.0 (unreleased)\n", ":3: the top heading says 0.2.0"),
    (CORE / "CHANGELOG.md", "# Changelog\n", ":1: no heading such as: ## 0.1.0"),
    (CORE / "pyproject.toml", pyproject("clip-core", "numpy>=1.26", "pyyaml>=6"), ":5: declares pyyaml"),
    (
        CORE / "pyproject.toml",
        pyproject("clip-core", "numpy>=1.26", test=("open_clip_torch",)),
        "open_clip_torch, but no",
    ),
    (CORE / "pyproject.toml", pyproject("clip-core", "clip-hub>=0.1,<0.2", "numpy>=1.26"), ":4: depends on clip-hub"),
    (
        HUB / "pyproject.toml",
        pyproject("clip-hub", "clip-core==0.1.0", "numpy>=1.26"),
        ":4: clip-core==0.1.0: siblings",
    ),
    (HUB / "pyproject.toml", pyproject("clip-hub", "clip-core>=0.2,<0.3", "numpy>=1.26"), "leaves out clip-core 0.1.0"),
    (
        HUB / "pyproject.toml",
        pyproject("clip-hub", "clip-core>=0.1,<0.2", "numpy>=2"),
        "but clip-core says numpy>=1.26",
    ),
    (Path("notes.md"), "see /ro" + "ot/main/x\n", ":1: path of one machine"),
    (
        Path("notes.md"),
        "\npip install --index-" + "url=https://example.org/simple x\n",
        ":2: address of a package index",
    ),
    (Path("uv.lock"), "", ":1: lock file"),
]


@pytest.mark.parametrize(("path", "text", "message"), PLANTED, ids=[message for _, _, message in PLANTED])
def test_a_planted_violation_is_the_one_found(root: Path, path: Path, text: str, message: str) -> None:
    write(root, path, text)
    (line,) = found(root)
    assert line.startswith(str(path))
    assert message in line


@pytest.mark.parametrize("name", ["README.md", "LICENSE", "CHANGELOG.md", "src/clip_core/py.typed"])
def test_a_missing_file(root: Path, name: str) -> None:
    (root / CORE / name).unlink()
    assert found(root) == [f"{CORE / name}:1: missing: every package has one"]


def test_what_the_rules_allow(root: Path) -> None:
    write(root, SOURCE / "command.py", MODULE + "print(1)\n")  # a command line prints
    write(root, SOURCE / "lending_commands.py", MODULE + "print(1)\n")  # so does a part of one
    write(root, SOURCE / "commands/lend.py", MODULE + "print(1)\n")
    write(root, CORE / "tests/test_commands.py", "import clip_core\n")
    write(root, CORE / "tests/test_lending_commands.py", "import clip_core\n")
    write(root, CORE / "tests/test_command.py", "import clip_core\n")
    write(root, SOURCE / "towers/vit.py", MODULE)  # a test of its folder mirrors it
    write(root, CORE / "tests/test_towers.py", "import clip_core\n")
    write(root, SOURCE / "layers/block.py", MODULE)  # as does one that says so
    write(root, CORE / "tests/test_model.py", '"""Covers clip_core.layers too."""\n\nimport clip_core\n')
    write(root, SOURCE / "short.py", '"""A note."""\n\n__all__ = []\n')  # too small for a test of its own
    write(root, CORE / "CHANGELOG.md", "# Changelog\n\n## Unreleased\n\n- More.\n\n## 0.1.0 (2026-11-21)\n")
    write(root, Path("notes.md"), "https://example.org/ro" + "ot/x and packages/wo" + "rk/x\n")
    (root / "picture.png").write_bytes(b"\x89PNG\xff/ro" + b"ot/x")
    assert found(root) == []


def test_new_files_are_seen_and_ignored_or_deleted_ones_are_not(root: Path) -> None:
    def git(*command: str) -> None:
        subprocess.run(["git", "-C", str(root), *command], check=True)

    git("init", "--quiet")
    write(root, Path("gone.py"), "")
    git("add", "gone.py")
    (root / "gone.py").unlink()
    write(root, Path(".gitignore"), "ignored.py\n")
    write(root, Path("ignored.py"), "")
    write(root, Path("notes on é.md"), "")
    names = {str(path) for path in Tree.of_git(root, ORDER).files}
    assert {"notes on é.md", ".gitignore", str(SOURCE / "room.py")} < names
    assert not {"gone.py", "ignored.py"} & names
