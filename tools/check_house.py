"""The house rules that a machine can check: `python tools/check_house.py`; exit code 1 where one is broken.

Each rule says file, line, what is wrong and what to do. The rules themselves are in tools/house/; what a machine
cannot judge (whether a comment says why, whether a name is good) is in .github/CONTRIBUTING.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

from house import package, source, text
from house.tree import Finding, Tree

__all__ = ["PACKAGES", "findings", "main"]

PACKAGES = ("clip-core", "clip-hub", "clip-eval", "clip-train")
ROOT = Path(__file__).resolve().parent.parent


def findings(tree: Tree) -> list[Finding]:
    """What every rule finds in `tree`, in the order of files and lines."""
    return sorted([*source.check(tree), *package.check(tree), *text.check(tree)])


def main() -> int:
    """Exit code: 1 where a rule is broken, else 0; hints fail nothing."""
    found = findings(Tree.of_git(ROOT, PACKAGES))
    for finding in found:
        print(finding)
    broken = sum(not finding.hint for finding in found)
    print(f"check_house: {broken} broken rules, {len(found) - broken} hints")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
