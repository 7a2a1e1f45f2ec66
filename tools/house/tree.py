"""What a rule sees and says: the files of the repository, parsed once, and findings with a place."""

from __future__ import annotations

import ast
import dataclasses
import functools
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["Finding", "Package", "Tree"]


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A rule broken at `path` (relative to the root) and 1-based `line`. A `hint` is printed and fails nothing."""

    path: str
    line: int
    message: str
    hint: bool = False

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {'hint: ' if self.hint else ''}{self.message}"


class Tree:
    """The files of a repository. `order` names its packages, leftmost first."""

    def __init__(self, root: Path, files: list[Path], order: tuple[str, ...]) -> None:
        """`files` are relative to `root`."""
        self.root = root
        self.files = sorted(files)
        self.packages = [Package(self, name, order[:place]) for place, name in enumerate(order)]

    @classmethod
    def of_git(cls, root: Path, order: tuple[str, ...]) -> Tree:
        """What git tracks in `root`, and new files that it does not ignore."""
        command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        # A file that was deleted and not yet committed is still listed.
        return cls(root, [Path(name) for name in set(listed.split("\0")) if name and (root / name).is_file()], order)

    @functools.cache  # noqa: B019  (one tree lives as long as the program)
    def text(self, path: Path) -> str | None:
        """The text of a file; None where it is binary."""
        try:
            return (self.root / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return None

    @functools.cache  # noqa: B019
    def parsed(self, path: Path) -> ast.Module:
        """The syntax tree of a Python file."""
        return ast.parse(self.text(path) or "", filename=str(path))

    def under(self, folder: Path, suffix: str = ".py") -> list[Path]:
        """The files below `folder` whose name ends in `suffix`."""
        return [path for path in self.files if folder in path.parents and path.name.endswith(suffix)]


class Package:
    """One package of the repository: where its parts are and what its metadata says."""

    def __init__(self, tree: Tree, name: str, left: tuple[str, ...]) -> None:
        """`left` names the packages it may import."""
        self.tree = tree
        self.name = name
        self.left = left
        self.module = name.replace("-", "_")
        self.folder = Path("packages") / name
        self.source = self.folder / "src" / self.module
        self.about = self.source / "__about__.py"

    @functools.cached_property
    def project(self) -> dict[str, Any]:
        """The `[project]` table of its pyproject.toml."""
        text = self.tree.text(self.folder / "pyproject.toml") or ""
        project: dict[str, Any] = tomllib.loads(text)["project"]
        return project

    @functools.cached_property
    def version(self) -> str | None:
        """`__version__` of `__about__.py`; None where it has none."""
        for node in self.tree.parsed(self.about).body:
            match node:
                case ast.Assign(targets=[ast.Name(id="__version__")], value=ast.Constant(value=str(version))):
                    return version
        return None

    def imports(self, folder: Path) -> Iterator[tuple[Path, int, str]]:
        """(file, line, top-level module) of every import below `folder`, those inside functions included."""
        for path in self.tree.under(folder):
            for node in ast.walk(self.tree.parsed(path)):
                match node:
                    case ast.Import(names=names):
                        for alias in names:
                            yield path, node.lineno, alias.name.partition(".")[0]
                    case ast.ImportFrom(module=str(module), level=0):
                        yield path, node.lineno, module.partition(".")[0]
                    case ast.Call(
                        func=ast.Attribute(attr="import_module" | "importorskip"),
                        args=[ast.Constant(value=str(module)), *_],
                    ):
                        yield path, node.lineno, module.partition(".")[0]
