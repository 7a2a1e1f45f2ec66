"""From the words of a command line to data sets: suites, names of the catalogue, folders, addresses.

What is not here: fetching and opening them (`places`, `wds`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clip_core.errors import ConfigError
from clip_eval.catalogue import Entry, entries, find, lookup
from clip_eval.places.address import Folder, HubRepository, resolve_root, take_apart, without_secrets
from clip_eval.suites import QUICK, SUITES, suite
from clip_hub.repository import is_repository

__all__ = ["Selected", "select"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """One data set that was asked for."""

    name: str
    """As the catalogue calls it; the last part of its path or address where it is not in there."""
    address: str
    """A folder, or where to fetch it from."""
    word: str = ""
    """The name that it was asked for by, as it was typed; "" for a folder or an address."""
    entry: Entry | None = None
    """What the catalogue knows of it."""


def select(words: Sequence[str], *, root: str | None = None) -> tuple[Selected, ...]:
    """The data sets that `words` mean, each once, in the order of the words.

    Args:
        words: each the name of a suite ("vtab+"), of a data set ("vtab/cifar10", "wds/vtab/cifar10"), a folder, an
            address ("hf://datasets/org/name", "s3://bucket/folder"), or a text file with one of these per line.
        root: where data sets lie on this machine: the folder that holds one folder for each. What is not there is
            fetched from where the catalogue says. Or the address of such a folder elsewhere, which holds them all; or
            the address of each one, in which "{dataset}" and "{dataset_cleaned}" are replaced by its name, as
            CLIP_benchmark does. Words that are addresses themselves lie where they say.

    Raises:
        ConfigError: a word is none of these, `root` is no folder, the catalogue knows no place to fetch a set
            from, or two words mean two data sets of one name.
        DataError: a word looks like an address and is none.
    """
    if root is not None and "{" not in root and "://" not in root and not Path(root).is_dir():
        raise ConfigError(f"{root}: no such folder to look for data sets in. Check the path, or leave it out.")
    found: dict[str, Selected] = {}
    for word in _words(words):
        chosen = _locate(word, root)
        earlier = found.setdefault(chosen.name, chosen)
        if Path(earlier.address).resolve() != Path(chosen.address).resolve():
            raise ConfigError(
                f"Two data sets share the name {chosen.name!r}: {without_secrets(earlier.address)} and "
                f"{without_secrets(chosen.address)}; their records would be the same file. "
                "Evaluate them one after the other, with an --output each."
            )
    return tuple(found.values())


def _words(words: Sequence[str]) -> list[str]:
    out: list[str] = []
    for word in words:
        if word.lower().replace("-", "_").replace("vtab_plus", "vtab+") in SUITES and not Path(word).is_dir():
            out.extend(suite(word).datasets)
        elif Path(word).is_file():
            lines = (line.partition("#")[0].strip() for line in Path(word).read_text(encoding="utf-8").splitlines())
            out.extend(_words([line for line in lines if line]))
        else:
            out.append(word)
    return out


def _locate(word: str, root: str | None) -> Selected:
    # CLIP_benchmark's "wds/" says which of its readers to take; here there is one.
    if "://" in word:
        return _at(word)
    name = word.removeprefix("wds/")
    entry = lookup(name)
    called = name if entry is None else entry.name
    if root is not None and "{" in root:
        return Selected(name=called, address=_in_each(name, root, entry), word=word, entry=entry)
    if Path(word).is_dir():
        return _folder(word)
    if root is not None and "://" in root:
        address = resolve_root(name if entry is None else entry.folder, root)
        return Selected(name=called, address=address, word=word, entry=entry)
    if root is not None:
        plain = name.replace("/", "-")
        places = [entry.folder] if entry is not None else []
        for folder in (Path(root) / part for part in (*places, f"wds_{plain}", plain, name)):
            if folder.is_dir():
                return Selected(name=called, address=str(folder), word=word, entry=entry)
    # "vtab/cifar11" is a mistyped name of the catalogue, not a repository of somebody called vtab.
    families = {part.name.partition("/")[0] for part in entries() if "/" in part.name}
    owner = word.partition("/")[0]
    if entry is None and is_repository(word) and owner not in families and not Path(owner).is_dir():
        return _at(f"hf://datasets/{word}")
    if entry is None:
        try:
            find(name)
        except ConfigError as error:
            raise ConfigError(
                f"{word}: no such data set folder here{f' or in {root}' if root else ''}. {error}"
            ) from None
    assert entry is not None
    if entry.name in QUICK:
        from clip_eval.datasets.quick import cached_quick

        return Selected(name=entry.name, address=str(cached_quick(entry.name)), word=word, entry=entry)
    if entry.address is None:
        here = f" in {root}" if root else ""
        command = entry.build or "clip-eval build --help"
        raise ConfigError(
            f"{entry.name} is not on this machine{here}, and no public copy in this layout is known. Build it "
            f"(`{command}`) and give its folder, or the folder above it as --data."
        )
    return Selected(name=entry.name, address=f"hf://datasets/{entry.address}", word=word, entry=entry)


def _folder(address: str) -> Selected:
    """A folder is a set of the catalogue where it is called as that, or wds_...; "pets" and "coco" are anybody's."""
    last = Path(address).resolve().name
    entry = lookup(last)
    if entry is not None and not last.startswith("wds_") and last not in (entry.name, entry.name.replace("/", "-")):
        entry = None
    return Selected(name=last if entry is None else entry.name, address=address, entry=entry)


def _at(address: str) -> Selected:
    """A data set at a place of its own, which is known by the last part of its path, or not."""
    place = take_apart(address)
    if isinstance(place, HubRepository):
        last = (place.folder or place.repo).rpartition("/")[2]
    else:
        # Without what may be secret in an address: the name is printed and becomes part of the record's.
        last = place.path.name if isinstance(place, Folder) else place.name
    entry = lookup(last)
    return Selected(name=last if entry is None else entry.name, address=address, entry=entry)


def _in_each(word: str, root: str, entry: Entry | None) -> str:
    """The address of a data set where `root` is a pattern: filled with the word, as CLIP_benchmark does it.

    With the catalogue's name where only that is a folder here, or the catalogue's own copy on the Hub.
    """
    if re.search(r"[{}]", re.sub(r"\{dataset(_cleaned)?\}", "", root)):
        raise ConfigError(
            f"The root {without_secrets(root)!r} cannot be filled; allowed: {{dataset}} and {{dataset_cleaned}}."
        )
    typed = resolve_root(word, root)
    if entry is None:
        return typed
    known = resolve_root(entry.name, root)
    if "://" not in root:
        return known if Path(known).is_dir() and not Path(typed).is_dir() else typed
    place = take_apart(known)
    return known if isinstance(place, HubRepository) and place.repo == entry.address else typed
