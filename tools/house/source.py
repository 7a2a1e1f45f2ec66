"""Rules about single Python files: their size, name, docstring, exports, and what they may not do."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from house.tree import Finding, Tree

__all__ = ["HINT_LINES", "MOST_LINES", "check"]

MOST_LINES = 500
HINT_LINES = 300
_PRINTERS = {"cli.py", "__main__.py", "command.py"}
_NO_EXPORTS = {"__about__.py", "__main__.py"}


def check(tree: Tree) -> Iterator[Finding]:
    """Every finding about the Python files of `tree`."""
    for path in (path for path in tree.files if path.suffix == ".py"):
        yield from _length(tree, path)
        if path.name in {"utils.py", "util.py", "helpers.py"}:
            yield Finding(str(path), 1, f"no {path.name}: name the file after what it does")
    for package in tree.packages:
        for path in tree.under(package.source):
            yield from _docstring_and_exports(tree, path)
            yield from _prints(tree, path)
            if package.source / "kernels" in path.parents:
                yield from _environment_flags(tree, path)


def _length(tree: Tree, path: Path) -> Iterator[Finding]:
    lines = (tree.text(path) or "").count("\n")
    if lines > MOST_LINES:
        yield Finding(str(path), 1, f"{lines} lines: split before {MOST_LINES}")
    elif lines > HINT_LINES:
        yield Finding(str(path), 1, f"{lines} lines: think again at {HINT_LINES}", hint=True)


def _docstring_and_exports(tree: Tree, path: Path) -> Iterator[Finding]:
    if path.name in _NO_EXPORTS:
        return
    module = tree.parsed(path)
    if ast.get_docstring(module) is None:
        yield Finding(str(path), 1, "no module docstring: say what the room is for and what it leaves out")
    assigned: set[str] = set()
    for node in module.body:
        match node:
            case ast.Assign(targets=targets):
                assigned.update(target.id for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                assigned.add(name)
    empty = path.name == "__init__.py" and len(module.body) <= 1  # a folder's docstring, which exports nothing
    if "__all__" not in assigned and not empty:
        yield Finding(str(path), 1, "no __all__: list the module's public names")


def _prints(tree: Tree, path: Path) -> Iterator[Finding]:
    if path.name in _PRINTERS or path.name.endswith("_commands.py") or {"cli", "commands"} & set(path.parts):
        return
    for node in ast.walk(tree.parsed(path)):
        match node:
            case ast.Call(func=ast.Name(id="print")):
                yield Finding(str(path), node.lineno, "print in library code: log it, or return it to the command line")


def _environment_flags(tree: Tree, path: Path) -> Iterator[Finding]:
    for node in ast.walk(tree.parsed(path)):
        match node:
            case (
                ast.Attribute(value=ast.Name(id="os"), attr="environ" | "getenv")
                | ast.ImportFrom(module="os", names=[ast.alias(name="environ" | "getenv"), *_])
            ):
                yield Finding(
                    str(path), node.lineno, "environment flag in a kernel: a context manager forces a backend"
                )
