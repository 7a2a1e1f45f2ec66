"""Rules about any tracked file: no package index, no path of one machine, no lock file."""

from __future__ import annotations

import re
from collections.abc import Iterator

from house.tree import Finding, Tree

__all__ = ["check"]

# Written so that this file does not match itself.
_FORBIDDEN = {
    "address of a package index": re.compile(
        r"pypi\.org/simple|pypi\.python\.org|pythonhosted\.org/packages|registry\.npmjs\.org|deb\.debian\.org"
        r"|download\.pytorch\.org|--(?:extra-)?index-url[ =]|--find-links[ =]+\w+://|^\s*index-url *="
    ),
    "path of one machine": re.compile(
        r"(?<![\w.}\]-])(?:/(?:work|root|home/[a-z]\w*|Users/\w+)/[\w.]|[A-Z]:\\+Users\\)"
    ),
}
_LOCKS = {"uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "pylock.toml", "package-lock.json", "yarn.lock"}


def check(tree: Tree) -> Iterator[Finding]:
    """Every finding about the text of the files of `tree`."""
    for path in tree.files:
        if path.name in _LOCKS:
            yield Finding(str(path), 1, "lock file: tools/constraints.txt pins the development set")
        for number, line in enumerate((tree.text(path) or "").splitlines(), start=1):
            for what, pattern in _FORBIDDEN.items():
                if pattern.search(line):
                    yield Finding(str(path), number, f"{what}: take it out")
