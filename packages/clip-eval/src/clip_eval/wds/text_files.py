"""The small text files of a data set folder: kind, class names, templates, number of shards, what it says of itself.

A line ends at a line feed (with or without a carriage return before it) and at nothing else, a blank line is a line,
spaces at the ends of a line are dropped as the layout's other readers do it, and a byte order mark is no text.
FairFace and UTKFace ask several questions of the same images; each of their lines begins with the question's name
("race: ..."), here called objective. What is not here: what lies in the shards.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clip_core.errors import DataError, listed
from clip_eval.wds.dataset import KINDS, Kind

__all__ = [
    "check_class_names",
    "choose_objective",
    "decode",
    "objectives_in",
    "read_about",
    "read_count",
    "read_kind",
    "read_lines",
    "read_names",
    "read_templates",
]


def decode(data: bytes, source: str) -> str:
    """UTF-8 text without its byte order mark; `DataError`, naming `source`, for other bytes."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: not UTF-8 text ({error}).") from error


def read_lines(path: Path) -> list[str]:
    """The lines of a file. The last line feed ends a line and begins none."""
    text = _read(path)
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def read_kind(root: Path) -> Kind:
    """What `dataset_type.txt` says; without it the set is one of classification."""
    path = root / "dataset_type.txt"
    if not path.exists():
        return "classification"
    word = _read(path).strip().lower()
    for kind in KINDS:
        if kind == word:
            return kind
    raise DataError(f"{path}: unknown data set type {word!r}; allowed: {', '.join(KINDS)}.")


def read_count(path: Path) -> int:
    """The number of shards in `nshards.txt`, 1 or more."""
    if not path.exists():
        raise DataError(f"{path}: missing. It holds the number of shards; without it a lost shard goes unseen.")
    text = _read(path).strip()
    if not (text.isascii() and text.isdigit()) or int(text) == 0:
        raise DataError(f"{path}: must hold one whole number above 0, the number of shards, not {text!r}.")
    return int(text)


def read_names(path: Path) -> tuple[str, ...]:
    """The class names, one per line, blank ones included: dropping one would shift every label behind it."""
    return tuple(line.strip() for line in read_lines(path))


def read_templates(path: Path) -> tuple[str, ...]:
    """The prompts, each with the placeholder `{c}`."""
    templates = read_names(path)
    for number, template in enumerate(templates, 1):
        if "{c}" not in template:
            raise DataError(f"{path}: line {number}, {template!r}, has no placeholder {{c}} for the class name.")
    if not templates:
        raise DataError(f"{path}: holds no template.")
    return templates


def read_about(root: Path) -> dict[str, Any]:
    """What a data set says about itself in `about.json`; empty without the file."""
    path = root / "about.json"
    if not path.exists():
        return {}
    try:
        about = json.loads(_read(path))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}).") from error
    if not isinstance(about, dict):
        raise DataError(f"{path}: must hold one object, not {type(about).__name__}.")
    return about


def check_class_names(classnames: Sequence[str], source: str, *, allow_duplicates: bool = False) -> None:
    """Raises `DataError` when there is no class, or when two share a name: their prompts could not be told apart."""
    if not classnames:
        raise DataError(f"{source}: holds no class name.")
    if allow_duplicates:
        return
    twice = [repr(name) for name, count in Counter(classnames).items() if count > 1]
    if twice:
        raise DataError(
            f"{source}: {len(twice)} class name(s) occur more than once ({listed(twice)}), so their prompts are equal "
            "and no model can tell the classes apart. Rename them, or allow duplicate class names "
            "(--allow-duplicate-classes) and read the tie bounds."
        )


def choose_objective(
    names: tuple[str, ...], templates: tuple[str, ...], objective: str, source: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The class names and templates of `objective`, without its name in front; all of them in a set without any.

    Raises `DataError` when a set has objectives and none is chosen, or has no such objective.
    """
    known = _objectives(names, templates)
    if objective and not known:
        raise DataError(
            f"{source}: has no objective {objective!r}: its class names do not begin with one and a colon. Leave the "
            "objective out."
        )
    if objective not in known and known:
        told = f"has no objective {objective!r}" if objective else "asks several questions of the same images"
        raise DataError(
            f'{source}: {told}; choose one of {", ".join(known)} (objective="{known[0]}"). Their right answers are '
            'columns of the metadata (.npy), whose names stand in about.json under "metadata_fields".'
        )
    if not known:
        return names, templates
    return _of_objective(names, objective), _of_objective(templates, objective)


def objectives_in(root: Path) -> tuple[str, ...]:
    """The questions in front of a set's class names whose answers are a column of the metadata in `about.json`.

    None for a set that lacks a file, or asks one question only.
    """
    paths = root / "classnames.txt", root / "zeroshot_classification_templates.txt"
    if not all(path.exists() for path in paths):
        return ()
    fields = read_about(root).get("metadata_fields")
    known = _objectives(*(read_names(path) for path in paths))
    return tuple(name for name in known if isinstance(fields, list) and name in fields)


def _objectives(names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """The words before the first colon, where every line of both files has one and the files agree about them."""
    found: list[list[str]] = []
    for lines in (names, templates):
        parts = [line.partition(":") for line in lines]
        if not all(colon and word.isidentifier() for word, colon, _ in parts):
            return []
        found.append(list(dict.fromkeys(word for word, _, _ in parts)))
    return found[0] if found[0] and set(found[0]) == set(found[1]) else []


def _of_objective(lines: Sequence[str], objective: str) -> tuple[str, ...]:
    return tuple(line.partition(":")[2].strip() for line in lines if line.partition(":")[0] == objective)


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; the data set folder is not complete.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    return decode(data, str(path))
