"""Reads a user's own class names and templates: JSON files as CLIP_benchmark takes them.

A file is an object from data set to words, or the words alone. The words are a list; of templates also an object from
class name to the full prompts of that class (as CuPL has them, Pratt et al. 2023).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from clip_core.errors import DataError

__all__ = ["Templates", "check_class_prompts", "read_classnames", "read_templates"]

Templates = tuple[str, ...] | Mapping[str, tuple[str, ...]]
"""Templates with the placeholder `{c}` for every class; or by class name its prompts in full."""


def read_classnames(path: str | PathLike[str], *names: str, required: bool = True) -> tuple[str, ...] | None:
    """The class names that a file has for a data set, under the first of `names` that it holds.

    An empty name is kept. Without any of the names: None, or `DataError` where `required`. Raises `DataError` for
    whatever is not a list of texts.
    """
    words = _find(Path(path), names, required)
    if words is None:
        return None
    return _texts(words, f"{path}: the class names")


def read_templates(path: str | PathLike[str], *names: str, required: bool = True) -> Templates | None:
    """The templates that a file has for a data set, under the first of `names` that it holds.

    Raises `DataError` for a template without `{c}`, for a full prompt with it, and as `read_classnames` does.
    """
    words = _find(Path(path), names, required)
    if words is None:
        return None
    if not isinstance(words, dict):
        templates = _texts(words, f"{path}: the templates")
        for template in templates:
            if "{c}" not in template:
                raise DataError(f"{path}: the template {template!r} has no placeholder {{c}} for the class name.")
        return templates
    prompts = {name: _texts(lines, f"{path}: the prompts of {name!r}") for name, lines in words.items()}
    for name, lines in prompts.items():
        for line in lines:
            if "{c}" in line:
                raise DataError(
                    f"{path}: the prompt {line!r} of the class {name!r} has a placeholder, but the prompts of a class "
                    "are taken as they stand. Write its name out."
                )
    return prompts


def check_class_prompts(prompts: Mapping[str, Sequence[str]], classnames: Sequence[str], source: str) -> None:
    """Raises `DataError` unless the full prompts are those of the classes: none missing, none too many."""
    missing = [name for name in dict.fromkeys(classnames) if name not in prompts]
    unknown = [name for name in prompts if name not in set(classnames)]
    if missing or unknown:
        shown = [
            f"{len(names)} {what} ({', '.join(map(repr, names[:5]))}{', ...' if len(names) > 5 else ''})"
            for what, names in (("classes have no prompts", missing), ("names are no class", unknown))
            if names
        ]
        raise DataError(
            f"{source}: the prompts of each class must go by the class names as they stand: {'; '.join(shown)}."
        )


def _find(path: Path, names: Sequence[str], required: bool) -> Any:
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file of class names or templates.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable JSON file ({error}).") from error
    if isinstance(words, list):
        return words
    if not isinstance(words, dict):
        raise DataError(f"{path}: must be an object from data set to words, or a list of them, not {words!r:.60}.")
    for name in names:
        if name in words:
            return words[name]
    if required:
        held = ", ".join(list(words)[:8]) + (", ..." if len(words) > 8 else "")
        raise DataError(f"{path}: has nothing for {' or '.join(names)}; it has {held}.")
    return None


def _texts(words: Any, what: str) -> tuple[str, ...]:
    if not isinstance(words, list) or not words or not all(isinstance(line, str) for line in words):
        raise DataError(f"{what} must be a list of one or more texts, not {words!r:.60}.")
    return tuple(words)
