"""Finds a row of the catalogue by any of the names that people use for a data set."""

from __future__ import annotations

import difflib
from functools import cache

from clip_core.errors import ConfigError
from clip_eval.catalogue import (
    compositional,
    groups,
    imagenet,
    multilingual,
    natural,
    quick,
    retrieval,
    vtab,
    vtab_structured,
)
from clip_eval.catalogue.entry import Entry

__all__ = ["entries", "find", "lookup", "names"]

_ENTRIES: tuple[Entry, ...] = (
    *imagenet.ENTRIES,
    *natural.ENTRIES,
    *vtab.ENTRIES,
    *vtab_structured.ENTRIES,
    *groups.ENTRIES,
    *retrieval.ENTRIES,
    *multilingual.ENTRIES,
    *compositional.ENTRIES,
    *quick.ENTRIES,
)

# CLIP_benchmark's names without vtab/ of sets that are not those of VTAB: all images, no test split.
_OTHER_SETS = ("caltech101", "eurosat")
# What may be left out in front of a name.
_GROUPS = ("vtab", "wilds", "fairness")


def entries() -> tuple[Entry, ...]:
    """All rows, family by family."""
    return _ENTRIES


def names() -> tuple[str, ...]:
    """The name of every row, in the order of `entries`."""
    return tuple(entry.name for entry in _ENTRIES)


def lookup(name: str) -> Entry | None:
    """The row of a data set, or None where the catalogue has none: the names that `find` takes."""
    if name.strip().removeprefix("wds/") in _OTHER_SETS:
        return None
    return _by_key().get(_plain(name)) or _by_key().get(name.strip().lower())


def find(name: str) -> Entry:
    """The row of a data set.

    Takes CLIP_benchmark's name (`vtab/cifar10`, `wds/vtab/cifar10`), the name of a folder or repository in the `wds`
    layout (`wds_vtab-cifar10`, `clip-benchmark/wds_vtab-cifar10`, `djghosh/wds_vtab-cifar10_test`), DataComp's key
    (`fairness/geode`, `retrieval/...`), and the title (`CIFAR-10`); the case does not matter. Raises `ConfigError`
    with the nearest names for any other.
    """
    entry = lookup(name)
    if entry is not None:
        return entry
    near = difflib.get_close_matches(_plain(name), list(_by_key()), n=8, cutoff=0.5)
    held = [entry.name for entry in _ENTRIES if _plain(name) in entry.name]
    suggestions = list(dict.fromkeys([*held, *(_by_key()[key].name for key in near)]))[:4]
    hint = f"Nearest: {', '.join(suggestions)}. " if suggestions else ""
    raise ConfigError(
        f"The catalogue has no data set {name!r}. {hint}"
        f"`clip-eval list` shows all {len(_ENTRIES)}; a folder or an address of your own works without the catalogue."
    )


def _plain(name: str) -> str:
    """Without the decorations of a folder or a repository: `clip-benchmark/wds_mnist` and `wds/mnist` are `mnist`."""
    plain = name.strip().lower().rstrip("/")
    for account in ("clip-benchmark/", "djghosh/", "nlphuji/"):
        plain = plain.removeprefix(account)
    if plain.startswith("wds_"):
        return plain.removeprefix("wds_").removesuffix("_test")
    return plain.removeprefix("wds/")


@cache
def _by_key() -> dict[str, Entry]:
    """Every name that a row answers to, in lower case."""
    found: dict[str, Entry] = {}
    for entry in _ENTRIES:
        short = entry.datacomp.rpartition("/")[2] if not entry.mirror_is_wds else ""
        group, _, plain = entry.name.rpartition("/")
        last = plain if group in _GROUPS and plain not in _OTHER_SETS else ""
        for key in (entry.name, entry.title, entry.datacomp, short, last, *entry.aliases):
            for spelling in (key.lower(), key.lower().replace("/", "-")):
                if spelling and found.setdefault(spelling, entry) is not entry:
                    raise AssertionError(f"{spelling}: names both {found[spelling].name} and {entry.name}")
    return found
