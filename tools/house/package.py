"""Rules about a package as a whole: its files, its version, what it declares and imports, and that tests mirror it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from house.tree import Finding, Package, Tree
from release import top_heading

__all__ = ["TESTED_FROM", "check"]

TESTED_FROM = 30  # lines; a shorter module may be tested through another
_DISTRIBUTIONS = {  # where the import name is not the distribution's
    "PIL": "pillow",
    "open_clip": "open-clip-torch",
    "open_clip_train": "open-clip-torch",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
_NEVER_IMPORTED = {"pytest", "pyarrow"}  # one runs the tests; the other is datasets', whose newest wants a newer numpy
_ASKS_FOR_MORE = {("clip-train", "torch")}  # FSDP, sharded checkpoints and stores are those of 2.8


def check(tree: Tree) -> Iterator[Finding]:
    """Every finding about the packages of `tree`."""
    ranges: dict[str, tuple[str, str]] = {}
    for package in tree.packages:
        missing = list(_files(package))
        yield from missing
        if missing:
            continue
        yield from _changelog(package)
        yield from _siblings(package)
        yield from _source_imports(package)
        yield from _test_imports(package)
        yield from _mirror(package)
        yield from _same_ranges(package, ranges)


def _files(package: Package) -> Iterator[Finding]:
    wanted = ["pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"]
    for path in [*(package.folder / name for name in wanted), package.about, package.source / "py.typed"]:
        if path not in package.tree.files:
            yield Finding(str(path), 1, "missing: every package has one")


def _changelog(package: Package) -> Iterator[Finding]:
    path = package.folder / "CHANGELOG.md"
    heading = top_heading(package.tree.text(path) or "")
    if package.version is None:
        yield Finding(str(package.about), 1, 'no line __version__ = "..."')
    elif heading is None:
        yield Finding(str(path), 1, f"no heading such as: ## {package.version} (unreleased)")
    elif heading.version != package.version:
        message = f"the top heading says {heading.version}, {package.about.name} says {package.version}"
        yield Finding(str(path), heading.line, message)


def _declared(package: Package) -> Iterator[tuple[str, Requirement]]:
    """(extra or "", requirement) of everything the metadata declares."""
    for text in package.project.get("dependencies", []):
        yield "", Requirement(text)
    for extra, texts in package.project.get("optional-dependencies", {}).items():
        for text in texts:
            yield extra, Requirement(text)


def _line(package: Package, text: str) -> int:
    """The line of pyproject.toml that holds `text`; 1 where none does."""
    lines = (package.tree.text(package.folder / "pyproject.toml") or "").splitlines()
    return next((number for number, line in enumerate(lines, start=1) if text in line), 1)


def _siblings(package: Package) -> Iterator[Finding]:
    path = str(package.folder / "pyproject.toml")
    versions = {other.name: other.version for other in package.tree.packages}
    for _, requirement in _declared(package):
        name = requirement.name
        if name not in versions:
            continue
        line = _line(package, f'"{name}')
        operators = {clause.operator for clause in requirement.specifier}
        version = versions[name]
        if name not in package.left:
            yield Finding(path, line, f"depends on {name}, which is not to the left of {package.name}")
        elif not operators & {">=", ">"} or not operators & {"<", "<="}:
            yield Finding(path, line, f"{requirement}: siblings depend on ranges, such as {name}>=0.3,<0.4")
        elif version is not None and not requirement.specifier.contains(version, prereleases=True):
            yield Finding(path, line, f"{requirement} leaves out {name} {version}, the one in this tree")


def _distribution(module: str) -> str:
    return _DISTRIBUTIONS.get(module, canonicalize_name(module))


def _names(package: Package, *, test: bool) -> dict[str, str]:
    """{normalised name: name as written} of what the test extra declares, or of all the rest."""
    chosen = (requirement.name for extra, requirement in _declared(package) if (extra == "test") == test)
    return {canonicalize_name(name): name for name in chosen}


def _source_imports(package: Package) -> Iterator[Finding]:
    """What the source imports is declared, and what is declared outside the test extra is imported."""
    ours = {other.module for other in package.tree.packages}
    declared = _names(package, test=False)
    imported: set[str] = set()
    for path, line, module in package.imports(package.source):
        name = _distribution(module)
        known = name in imported or name in declared or module in ours or module in sys.stdlib_module_names
        imported.add(name)
        if not known:
            yield Finding(str(path), line, f"imports {module}, which {package.name} does not declare")
    for name, written in declared.items():
        if name not in imported and name.replace("-", "_") not in ours:
            message = f"declares {written}, but nothing in its source imports it"
            yield Finding(str(package.folder / "pyproject.toml"), _line(package, f'"{written}'), message)


def _test_imports(package: Package) -> Iterator[Finding]:
    """Tests import what their environment holds, and each peer of the test extra is compared with somewhere."""
    tests, bench = package.folder / "tests", package.folder / "bench"
    ours = [other for other in package.tree.packages if other.name in package.left or other is package]
    extra = _names(package, test=True)
    held = {canonicalize_name(other.name) for other in ours}.union(
        extra, *(_names(other, test=False) for other in ours)
    )
    local = {path.stem for path in [*package.tree.under(tests), *package.tree.under(Path("tools"))]}
    imported: set[str] = set()
    for path, line, module in package.imports(tests):
        name = _distribution(module)
        known = name in imported or name in held or module in local or module in sys.stdlib_module_names
        imported.add(name)
        if not known:
            yield Finding(str(path), line, f"the test imports {module}, which is not in {package.name}[test]")
    imported |= {_distribution(module) for _, _, module in package.imports(bench)}
    for name, written in extra.items():
        if name not in imported and name not in _NEVER_IMPORTED:
            message = f"the test extra has {written}, but no test and no bench imports it"
            yield Finding(str(package.folder / "pyproject.toml"), _line(package, f'"{written}'), message)


def _mirror(package: Package) -> Iterator[Finding]:
    """A module of some size has test_<module>.py or test_<folder>.py, or some test names it or its folder."""
    tests = package.tree.under(package.folder / "tests")
    files = {path.stem for path in tests}
    text = "\n".join(package.tree.text(path) or "" for path in tests)
    named = set(re.findall(rf"\b{package.module}(?:\.\w+)+", text))
    named |= {
        f"{module}.{name.strip()}"
        for module, names in re.findall(rf"from ({package.module}(?:\.\w+)*) import ([\w, ]+)", text)
        for name in names.split(",")
    }
    for path in package.tree.under(package.source):
        if path.name.startswith("__") or (package.tree.text(path) or "").count("\n") < TESTED_FROM:
            continue
        parts = path.relative_to(package.source).with_suffix("").parts
        dotted = [".".join([package.module, *parts[: length + 1]]) for length in range(len(parts))]
        if named.isdisjoint(dotted) and files.isdisjoint(f"test_{part}" for part in parts):
            yield Finding(
                str(path), 1, f"no test mirrors it: add tests/test_{path.stem}.py, or name {dotted[-1]} in one"
            )


def _same_ranges(package: Package, ranges: dict[str, tuple[str, str]]) -> Iterator[Finding]:
    """Two packages that declare one dependency declare one range, but for what is known to need more."""
    for _, requirement in _declared(package):
        name, wanted = canonicalize_name(requirement.name), str(requirement.specifier)
        if (package.name, name) in _ASKS_FOR_MORE:
            continue
        owner, known = ranges.setdefault(name, (package.name, wanted))
        if known != wanted:
            message = f"{requirement.name}{wanted}, but {owner} says {requirement.name}{known}"
            yield Finding(str(package.folder / "pyproject.toml"), _line(package, f'"{requirement.name}'), message)
